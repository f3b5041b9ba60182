"""The cost model beside what searches took: microseconds on an AMD Zen 3, rows of 384 columns."""

import pytest

from gpuzip.search.scorers.costs import of_kept_product, of_tables

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


@pytest.mark.parametrize(("N", "B", "K", "Q", "tables", "product"), MEASURED)
def test_what_is_chosen_took_hardly_longer(N, B, K, Q, tables, product):
    chosen = product if of_kept_product(Q, N, 384) < of_tables(Q, N, B, K) else tables
    assert chosen < 1.5 * min(tables, product)


@pytest.mark.parametrize("K", [16, 256])
def test_more_work_costs_more(K):
    assert of_tables(1, 1000, 48, K) < of_tables(2, 1000, 48, K) < of_tables(2, 2000, 48, K)
    assert of_tables(1, 1000, 48, K) < of_tables(1, 1000, 96, K)
    assert of_kept_product(1, 1000, 64) < of_kept_product(1, 1000, 128) < of_kept_product(8, 1000, 128)
