"""Random rotations, which need no data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip.ops.walsh import columns_of_round

ROUNDS = 4


def random_orthogonal(D: int, seed: int) -> Tensor:
    """(D, D) float64, drawn uniformly from all orthogonal matrices."""
    normal = torch.randn(
        (D, D), generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu"
    )
    Q, R = torch.linalg.qr(normal)
    rows: Tensor = Q * R.diagonal().sign()
    return rows


def random_signs(D: int, seed: int) -> Tensor:
    """(ROUNDS, D) bool: the sign flips of `hadamard`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (ROUNDS, D), generator=generator, device="cpu").bool()


def hadamard(x: Tensor, signs: Tensor) -> Tensor:
    """(N, D), (ROUNDS, D) bool -> (N, D): rounds of sign flips and a Walsh-Hadamard transform, orthonormal.

    A transform covers 2**p columns, the largest power of two up to D: the first ones and the last ones by
    turns. So no D needs padding, which would be coded too. x may be overwritten.
    Source: Ailon and Chazelle, "Approximate nearest neighbors and the fast Johnson-Lindenstrauss transform",
    2006; the rounds over both ends are from the RaBitQ library.
    """
    for i, flips in enumerate(signs):
        x = torch.where(flips, -x, x)
        columns = columns_of_round(x.shape[1], i)
        x[:, columns] = _transform(x[:, columns])
    return x


def _transform(x: Tensor) -> Tensor:
    """Transform (N, 2**p) rows by two small matrix products, one per half of the p index bits."""
    N, width = x.shape
    bits = width.bit_length() - 1
    a, b = 1 << (bits // 2), 1 << (bits - bits // 2)
    tile = matrix_product(torch.matmul, x.reshape(N * a, b), _sylvester(b, x))
    both = matrix_product(torch.matmul, _sylvester(a, x), tile.view(N, a, b))
    return both.view(N, width).div_(math.sqrt(width))


def _sylvester(width: int, like: Tensor) -> Tensor:
    """(width, width) Hadamard matrix of 1 and -1."""
    matrix = like.new_ones((1, 1))
    while len(matrix) < width:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix
