"""The cost model beside what searches took: microseconds on an AMD Zen 3 and a Zen 4, rows of 384 columns."""

import pytest

from gpuzip.search.scorers import costs
from gpuzip.search.scorers.costs import of_kept_product, of_tables, product_pays

#: Rows, bytes per row, entries of tables, queries; by tables, by a product with kept rows.
MEASURED = [
    (200, 48, 16, 1, 24, 30),
    (1000, 48, 16, 1, 17, 55),
    (1000, 48, 16, 16, 174, 344),
    (2700, 48, 16, 16, 246, 804),
    (1000, 96, 16, 1, 37, 67),
    (2700, 96, 16, 16, 923, 1355),
    (200, 192, 16, 1, 68, 35),
    (200, 192, 16, 16, 932, 355),
    (1000, 192, 16, 1, 149, 65),
    (1000, 192, 16, 4, 512, 156),
    (1000, 192, 16, 16, 2151, 640),
    (2700, 192, 16, 1, 226, 162),
    (200, 48, 256, 1, 34, 20),
    (1000, 48, 256, 1, 60, 54),
    (2700, 48, 256, 1, 58, 112),
    (2700, 48, 256, 8, 469, 594),
    (1000, 96, 256, 1, 67, 52),
    (1000, 96, 256, 4, 269, 108),
    (200, 384, 256, 1, 322, 32),
    (1000, 384, 256, 1, 811, 67),
    (2700, 384, 256, 4, 11935, 252),
]


#: The same on a Zen 4, whose registers of 512 bits look up tables of bytes.
MEASURED_WIDE = [
    (200, 48, 16, 1, 7, 12),
    (1000, 48, 16, 16, 70, 255),
    (200, 96, 16, 1, 9, 14),
    (200, 96, 16, 16, 69, 128),
    (1000, 96, 16, 16, 111, 275),
    (200, 192, 16, 1, 40, 15),
    (1000, 192, 16, 4, 84, 83),
    (2700, 192, 16, 16, 513, 604),
    (200, 48, 256, 1, 16, 12),
    (200, 48, 256, 16, 183, 117),
    (1000, 48, 256, 1, 19, 29),
    (1000, 48, 256, 16, 219, 318),
    (2700, 48, 256, 16, 292, 581),
    (200, 96, 256, 4, 70, 36),
    (1000, 96, 256, 4, 91, 73),
    (2700, 96, 256, 1, 37, 68),
    (1000, 192, 256, 1, 55, 32),
    (2700, 192, 256, 4, 313, 153),
    (2700, 384, 256, 1, 618, 67),
]

#: Of products with decoded rows instead of kept ones.
MEASURED_DECODED = [
    (200, 48, 256, 128, 1496, 831),
    (1000, 48, 256, 32, 452, 655),
    (2700, 48, 256, 128, 2304, 3848),
    (200, 96, 256, 32, 558, 392),
    (1000, 96, 256, 128, 3615, 1824),
    (2700, 96, 256, 32, 1088, 1464),
    (2700, 192, 256, 32, 2768, 1643),
    (20_000, 48, 256, 128, 12_500, 27_000),
    (20_000, 192, 256, 128, 97_400, 27_000),
    (20_000, 192, 16, 128, 8_900, 27_000),
    (2700, 96, 16, 32, 402, 1472),
    (2700, 192, 16, 128, 4151, 4507),
]


@pytest.mark.parametrize(("N", "B", "K", "Q", "tables", "product"), MEASURED)
def test_what_is_chosen_took_hardly_longer(N, B, K, Q, tables, product, monkeypatch):
    monkeypatch.setattr(costs, "has_wide_tables", lambda: False)
    chosen = product if of_kept_product(Q, N, 384) < of_tables(Q, N, B, K) else tables
    assert chosen < 1.5 * min(tables, product)


@pytest.mark.parametrize(("N", "B", "K", "Q", "tables", "product"), MEASURED_WIDE)
def test_the_same_by_wide_registers(N, B, K, Q, tables, product, monkeypatch):
    monkeypatch.setattr(costs, "has_wide_tables", lambda: True)
    chosen = product if of_kept_product(Q, N, 384) < of_tables(Q, N, B, K) else tables
    assert chosen < 1.5 * min(tables, product)


@pytest.mark.parametrize(("N", "B", "K", "Q", "tables", "product"), MEASURED_DECODED)
def test_the_same_of_decoded_rows(N, B, K, Q, tables, product, monkeypatch):
    monkeypatch.setattr(costs, "has_wide_tables", lambda: True)
    chosen = product if product_pays(Q, N, B, 384, K) else tables
    assert chosen < 1.5 * min(tables, product)


@pytest.mark.parametrize("K", [16, 256])
def test_more_work_costs_more(K):
    assert of_tables(1, 1000, 48, K) < of_tables(2, 1000, 48, K) < of_tables(2, 2000, 48, K)
    assert of_tables(1, 1000, 48, K) < of_tables(1, 1000, 96, K)
    assert of_kept_product(1, 1000, 64) < of_kept_product(1, 1000, 128) < of_kept_product(8, 1000, 128)
