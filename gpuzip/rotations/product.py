"""Rows times a matrix, the same digits for a row whatever rows are beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip._core.device import is_gpu
from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks

_ROWS = 128


def product(x: Tensor, matrix: Tensor, at_once: int = _ROWS) -> Tensor:
    """(N, D) float, (D, E) float32 -> (N, E) float32.

    A library's product of other shapes adds up in another order. On a CPU rows are therefore multiplied
    `at_once` at a time, the last ones padded to as many, by one thread. On a GPU the last digit of a row may
    depend on how many rows there are.
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
