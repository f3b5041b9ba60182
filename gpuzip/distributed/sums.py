"""Sums over the rows of all ranks, of whole numbers: exact in any order and for any number of ranks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip._core.rows import Rows
from gpuzip.codecs.pq import padded
from gpuzip.distributed.group import Ranks
from gpuzip.ops import assign

_BITS = 21  # of a value in second moments: products of _ROWS rows add up exactly in float64
_ROWS = 1 << (53 - 2 * _BITS)
_HALF = 1 << 26  # sums of products are kept in two parts, so that neither overflows


def exponent_of(ranks: Ranks, rows: Rows) -> int:
    """The least e such that all values of all ranks are below 2**e."""
    largest = ranks.all_do(lambda: max((float(block.abs().max()) for _, block in rows.blocks()), default=0.0))
    return max(e for (e,) in ranks.facts([math.frexp(largest)[1]]))


def moments(ranks: Ranks, rows: Rows, N: int, exponent: int) -> tuple[Tensor, Tensor]:
    """Second moments (D, D) and means (D,) of N rows, float64, of values rounded to 2**(exponent - 21)."""
    scale, D = 2.0 ** (_BITS - exponent), rows.d

    def own() -> Tensor:
        sums = torch.zeros((2 * D + 1, D), dtype=torch.int64, device=rows.device)
        for _, block in rows.blocks():
            for part in block.split(_ROWS):
                whole = part.double().mul_(scale).round_()
                products = matrix_product(torch.matmul, whole.T, whole)
                high = products.div(_HALF).floor_()
                sums[:D] += high.long()
                sums[D : 2 * D] += (products - high * _HALF).long()
                sums[2 * D] += whole.sum(0).long()
        return sums

    high, low, mean = ranks.total(ranks.all_do(own)).double().split([D, D, 1])
    return (high * _HALF + low) / (scale * scale * N), mean[0] / (scale * N)


def cells(ranks: Ranks, rows: Rows, centroids: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Sums (M, K, S) float32 and counts (M, K) int32 of the rows nearest to each centroid.

    scale: what values are multiplied by and then rounded; their sum must stay below 2**63.
    """
    M, K, S = centroids.shape
    first = torch.arange(0, M * K, K, device=centroids.device)

    def own() -> Tensor:
        sums = torch.zeros((M * K, S + 1), dtype=torch.int64, device=centroids.device)
        for _, block in rows.blocks():
            for part in block.split(_ROWS):
                values = padded(part.float(), M)
                cell = assign(values, centroids, exact=True).long().add_(first).view(-1)
                whole = values.double().mul_(scale).round_().long().view(-1, S)
                sums[:, :S].index_add_(0, cell, whole)
                sums[:, S] += torch.bincount(cell, minlength=M * K)
        return sums

    total = ranks.total(ranks.all_do(own)).view(M, K, S + 1)
    return (total[:, :, :S].double() / scale).float(), total[:, :, S].int()
