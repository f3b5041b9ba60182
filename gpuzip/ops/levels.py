"""Rows from levels: each level with the offset of its column, then a product with the columns' directions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator

#: Offsets of a column: of level 0, of magnitude 1, of 2, and of larger ones.
OFFSETS = 4


def steps_of(levels: Tensor, offsets: Tensor) -> Tensor:
    """Levels (N, C) int32 and offsets (C, OFFSETS) float32, away from 0 -> (N, C) float32."""
    group = levels.abs().clamp(max=OFFSETS - 1).long()
    beyond = offsets.expand(len(levels), -1, -1).gather(2, group[:, :, None])[:, :, 0]
    return levels + levels.sign() * beyond


def _reference(levels: Tensor, offsets: Tensor, directions: Tensor, mean: Tensor) -> Tensor:
    return matrix_product(torch.addmm, mean, steps_of(levels, offsets), directions)


def _shapes(levels: Tensor, offsets: Tensor, directions: Tensor, mean: Tensor) -> Tensor:
    return directions.new_empty((len(levels), len(mean)))


def _samples(device: str) -> Iterator[tuple[Tensor, ...]]:
    for N, C, D in [(0, 3, 4), (1, 1, 1), (5, 7, 3), (33, 16, 48), (70, 50, 65), (130, 20, 384)]:
        g = generator(N + C)
        spread = torch.logspace(0, 2, C)
        levels = (torch.randn(N, C, generator=g) * spread).int()
        offsets = torch.rand(C, OFFSETS, generator=g) - 0.5
        offsets[:, 0] = 0
        directions = torch.randn(C, D, generator=g) / spread[:, None]
        parts = (levels, offsets, directions, torch.randn(D, generator=g))
        yield tuple(part.to(device) for part in parts)


_rows_of_levels = define_op(
    "rows_of_levels(Tensor levels, Tensor offsets, Tensor directions, Tensor mean) -> Tensor",
    reference=_reference,
    shapes=_shapes,
    kernel="gpuzip.kernels.levels:rows_of_levels",
    loops="gpuzip.loops.levels:rows_of_levels",
    samples=_samples,
    agreement="close",
)


def rows_of_levels(levels: Tensor, offsets: Tensor, directions: Tensor, mean: Tensor) -> Tensor:
    """Turn levels into rows: mean + (level + sign(level) * offset) @ directions.

    Parameters
    ----------
    levels : (N, C) int32 tensor
        Multiples of a step.
    offsets : (C, OFFSETS) float32 tensor
        How far values lie beyond levels of magnitude 0, 1, 2, and more, in steps.
    directions : (C, D) float32 tensor
        What a step along each column adds to a row.
    mean : (D,) float32 tensor
        The row of levels that are 0.

    Returns
    -------
    (N, D) float32 tensor
        The rows.
    """
    rows: Tensor = _rows_of_levels(levels, offsets, directions, mean)
    return rows
