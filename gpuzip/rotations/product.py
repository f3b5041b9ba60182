"""Rows times a matrix, where the result of a row does not depend on the other rows."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack

from gpuzip._core.device import is_gpu
from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks

_ROWS = 128
_LEAST = 4  # rows of a tile; BLAS has other sums for fewer
_MOST_DRAWN = 1 << 22  # values of a matrix that is drawn to compare tiles


def product(x: Tensor, matrix: Tensor, at_once: int = _ROWS) -> Tensor:
    """(N, D) float, (D, E) float32 -> (N, E) float32.

    BLAS sums in an order that depends on the shape. On a CPU rows are therefore multiplied in blocks of
    `at_once`, the last block padded, one thread per block: to the fewest rows for which this BLAS was found
    to sum as for `at_once`. On a GPU the last digit of a result may depend on the number of rows.
    """
    if is_gpu(x.device):
        return matrix_product(torch.matmul, x.float(), matrix)
    out = torch.empty((len(x), matrix.shape[1]), dtype=torch.float32, device="cpu")

    def one_block(start: int, stop: int) -> None:
        block = x[start:stop].float()
        rows = _rows_of_tile(matrix, at_once, stop - start)
        if stop - start == rows:
            matrix_product(torch.mm, block, matrix, out=out[start:stop])
        else:
            padded = torch.nn.functional.pad(block, (0, 0, 0, rows - len(block)))
            out[start:stop] = matrix_product(torch.matmul, padded, matrix)[: stop - start]

    map_blocks(one_block, len(x), at_once)
    return out


def _rows_of_tile(matrix: Tensor, at_once: int, n: int) -> int:
    """The fewest rows, at least n, for which products sum as for `at_once`."""
    if n == at_once or matrix.numel() > _MOST_DRAWN or _len_torch_dispatch_stack():
        return at_once
    D, E = matrix.shape
    tiles = _tiles(D, E, matrix.is_contiguous(), at_once)
    return next((rows for rows in tiles if rows >= n), at_once)


@cache
def _tiles(D: int, E: int, by_rows: bool, at_once: int) -> list[int]:
    """Powers of two of rows whose products by a (D, E) matrix have the bits of `at_once` rows.

    The order of sums depends on shapes and not on values, so that random ones tell them apart.
    """
    drawn = torch.Generator(device="cpu").manual_seed(0)

    def normal(n: int, d: int) -> Tensor:
        return torch.randn((n, d), generator=drawn, dtype=torch.float32, device="cpu")

    x, matrix = normal(at_once, D), normal(D, E) if by_rows else normal(E, D).T
    whole = matrix_product(torch.mm, x, matrix)

    def is_same(rows: int) -> bool:
        starts = (0, at_once // 2 - 1, at_once - rows)
        return all(
            torch.equal(
                matrix_product(torch.mm, x[start : start + rows], matrix), whole[start : start + rows]
            )
            for start in starts
            if start + rows <= at_once
        )

    sizes = [1 << bit for bit in range(at_once.bit_length()) if _LEAST <= 1 << bit < at_once]
    return [rows for rows in sizes if is_same(rows)]
