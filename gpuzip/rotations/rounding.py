"""In which order this computer's BLAS sums a product, found by the bits of random products.

The order depends on the shapes and not on the values, and another order changes most results in their last
digit.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks
from gpuzip.ops.product_rows import few_products, few_products_run

_LEAST = 4  # rows of a tile; BLAS has other sums for fewer
_MOST = 1 << 22  # values of a matrix that is drawn
_known: dict[tuple[int, int, int], int] = {}  # runs by shape
_RUNS = (192, 256, 320, 384, 512, 1024)  # dimensions that BLAS may sum before it adds to a result


def tiles_of(D: int, E: int, by_rows: bool, at_once: int) -> list[int]:
    """Return by which numbers of rows products have the bits of those by `at_once` rows: powers of two.

    The matrix is (D, E), contiguous or the transpose of one that is.
    """
    return [] if D * E > _MOST else _tiles(D, E, by_rows, at_once)


@cache
def _tiles(D: int, E: int, by_rows: bool, at_once: int) -> list[int]:
    x, matrix, whole = _drawn(D, E, by_rows, at_once)

    def is_same(rows: int) -> bool:
        starts = {0, max(0, at_once // 2 - rows // 2 - 1), at_once - rows}
        return all(
            torch.equal(_product(x[start : start + rows], matrix), whole[start : start + rows])
            for start in starts
        )

    sizes = [1 << bit for bit in range(at_once.bit_length()) if _LEAST <= 1 << bit < at_once]
    return [rows for rows in sizes if is_same(rows)]


def run_of(D: int, E: int, at_once: int) -> int:
    """Return for which run `few_products` has the bits of `at_once` rows, or 0 if for none.

    The matrix is (D, E), contiguous.
    """
    shape = D, E, at_once
    if shape not in _known:
        if D * E > _MOST or not few_products_run():
            return 0
        _known[shape] = _run(*shape)
    return _known[shape]


def _run(D: int, E: int, at_once: int) -> int:
    x, matrix, whole = _drawn(D, E, True, at_once)
    for run in (D, *(run for run in _RUNS if run < D)):
        found = few_products(x, matrix, run)
        if found is not None and torch.equal(found, whole):
            return run
    return 0


def _drawn(D: int, E: int, by_rows: bool, at_once: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return random rows (at_once, D), a matrix (D, E), and their product."""
    drawn = torch.Generator(device="cpu").manual_seed(0)

    def normal(n: int, d: int) -> Tensor:
        return torch.randn((n, d), generator=drawn, dtype=torch.float32, device="cpu")

    x, matrix = normal(at_once, D), normal(D, E) if by_rows else normal(E, D).T
    return x, matrix, _product(x, matrix)


def _product(x: Tensor, matrix: Tensor) -> Tensor:
    """Return the product as `rotations.product` computes it: in one thread."""
    (found,) = map_blocks(lambda start, stop: matrix_product(torch.mm, x, matrix), 1, 1)
    return found
