"""Rows times a matrix, where the result of a row does not depend on the other rows."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip._core.device import is_gpu
from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks

_ROWS = 128


def product(x: Tensor, matrix: Tensor, at_once: int = _ROWS) -> Tensor:
    """(N, D) float, (D, E) float32 -> (N, E) float32.

    BLAS sums in an order that depends on the shape. On a CPU rows are therefore multiplied in blocks of
    `at_once`, the last block padded, one thread per block. On a GPU the last digit of a result may depend on
    the number of rows.
    """
    if is_gpu(x.device):
        return matrix_product(torch.matmul, x.float(), matrix)
    out = torch.empty((len(x), matrix.shape[1]), dtype=torch.float32, device="cpu")

    def one_block(start: int, stop: int) -> None:
        block = x[start:stop].float()
        if stop - start == at_once:
            matrix_product(torch.mm, block, matrix, out=out[start:stop])
        else:
            padded = torch.nn.functional.pad(block, (0, 0, 0, at_once - len(block)))
            out[start:stop] = matrix_product(torch.matmul, padded, matrix)[: stop - start]

    map_blocks(one_block, len(x), at_once)
    return out
