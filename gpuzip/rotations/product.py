"""Rows times a matrix, where the result of a row does not depend on the other rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack

from gpuzip._core.device import is_gpu
from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks
from gpuzip.ops.product_rows import few_products
from gpuzip.rotations.rounding import run_of, tiles_of

_ROWS = 128
_FEW = 4  # rows up to which a loop is faster than BLAS


def product(x: Tensor, matrix: Tensor, at_once: int = _ROWS) -> Tensor:
    """(N, D) float, (D, E) float32 -> (N, E) float32.

    BLAS sums in an order that depends on the shape. On a CPU rows are therefore multiplied in blocks of
    `at_once`, the last block padded, one thread per block. Where fewer rows, or a loop, were found to sum in
    the same order, they take less time for few rows. On a GPU the last digit of a result may depend on the
    number of rows.
    """
    if is_gpu(x.device):
        return matrix_product(torch.matmul, x.float(), matrix)
    few = _by_loop(x, matrix, at_once) if len(x) <= _FEW else None
    if few is not None:
        return few
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


def _by_loop(x: Tensor, matrix: Tensor, at_once: int) -> Tensor | None:
    if not matrix.is_contiguous() or _len_torch_dispatch_stack():
        return None
    D, E = matrix.shape
    run = run_of(D, E, at_once)
    return few_products(x.float(), matrix, run) if run else None


def _rows_of_tile(matrix: Tensor, at_once: int, n: int) -> int:
    """The fewest rows, at least n, for which products sum as for `at_once`."""
    if n == at_once or _len_torch_dispatch_stack():
        return at_once
    D, E = matrix.shape
    tiles = tiles_of(D, E, matrix.is_contiguous(), at_once)
    return next((rows for rows in tiles if rows >= n), at_once)
