"""The order of sums that is found for few rows: the bits of products of many."""

import pytest
import torch

from gpuzip.ops._dispatch import use_loops
from gpuzip.ops._samples import generator
from gpuzip.ops.product_rows import few_products, few_products_run
from gpuzip.rotations import product as products
from gpuzip.rotations import rounding
from gpuzip.rotations.product import product

SHAPES = [
    (1, 1),
    (3, 5),
    (17, 33),
    (64, 80),
    (100, 200),
    (9, 400),
    (193, 196),
]  # of rotations: D is at most E


def normal(n, d):
    return torch.randn(n, d, generator=generator(n * 1000 + d))


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_few_rows_have_the_bits_of_many(shape, loops):
    for matrix in (normal(*shape), normal(*shape).T):
        x = normal(131, len(matrix))
        many = product(x, matrix)
        with use_loops(loops):
            for n in (1, 3, 4, 5, 31, 65, 130):
                for start in (0, 131 - n):
                    some = slice(start, start + n)
                    assert torch.equal(product(x[some], matrix), many[some])
                    assert torch.equal(product(x[some], matrix, 32), product(x, matrix, 32)[some])


def test_a_tile_that_rounds_otherwise_is_not_taken(monkeypatch):
    """As if every product of fewer rows than a block were off by a digit."""

    def off(x, matrix):
        exact = x @ matrix
        return exact if len(x) == 32 else torch.nextafter(exact, torch.tensor(9.0))

    monkeypatch.setattr(rounding, "_product", off)
    monkeypatch.setattr(rounding, "_known", {})
    assert rounding._tiles.__wrapped__(24, 24, True, 32) == []
    monkeypatch.setattr(rounding, "_product", lambda x, matrix: off(x[1:], matrix))
    assert rounding.run_of(24, 24, 32) == 0
    monkeypatch.setattr(products, "tiles_of", lambda *args: [])
    assert products._rows_of_tile(normal(24, 24), 32, 3) == 32


def test_matrices_that_would_take_long_to_draw_are_not():
    assert (
        rounding.tiles_of(1 << 12, 1 << 11, True, 128) == [] and rounding.run_of(1 << 12, 1 << 11, 128) == 0
    )


@pytest.mark.parametrize("E", [1, 7, 8, 64, 77])
def test_the_loop_adds_fused_products_run_by_run(E):
    if not few_products_run():
        pytest.skip("no loop on this CPU")
    x, matrix = normal(3, 21), normal(21, E)
    want = torch.zeros(3, E)
    for first in range(0, 21, 8):
        total = torch.zeros(3, E)
        for d in range(first, min(first + 8, 21)):
            exact = x[:, d, None].double() * matrix[d].double()
            total = (exact + total.double()).float()
        want += total
    found = few_products(x, matrix, 8)
    assert found is not None and torch.equal(found, want)
    with use_loops(False):
        assert few_products(x, matrix, 8) is None
