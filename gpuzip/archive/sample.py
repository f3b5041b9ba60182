"""Rows to learn from: a part of large sets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip._core.rows import Rows
from gpuzip.archive.basis import Moments

_ROWS = 3 << 19  # values that steps and tables are learned from
_FEWEST = 1024  # rows, however many columns they have
_MOMENTS = 1 << 25  # values that directions are learned from
_PART = 1 << 14  # rows at a time
_UNIT = 1e-3  # how far a row's length may be from 1


@dataclass(frozen=True)
class Sample:
    """Rows to learn from.

    Attributes
    ----------
    rows : (n, D) float32 tensor
    moments : Moments
        Of these rows, or of more.
    is_all : bool
        Whether these are all rows that will be coded.
    unit : bool
        Whether rows have length 1.
    """

    rows: Tensor
    moments: Moments
    is_all: bool
    unit: bool


def sample_of(rows: Rows, seed: int) -> Sample:
    """Some of the rows, or all if they are few."""
    most = max(_FEWEST, _ROWS // rows.d)
    part = rows.sample(most, seed).float()
    wide = part if rows.n <= most else rows.sample(max(most, _MOMENTS // rows.d), seed).float()
    lengths = torch.linalg.vector_norm(part, dim=1)
    unit = bool(((lengths - 1).abs() < _UNIT).all())
    return Sample(part, _moments(wide, rows.n), rows.n <= most, unit)


def _moments(x: Tensor, n: int) -> Moments:
    mean = x.double().mean(0)
    second = torch.zeros((x.shape[1], x.shape[1]), dtype=torch.float64, device=x.device)
    for part in x.split(_PART):
        centered = part.double() - mean
        second += matrix_product(torch.mm, centered.T, centered)
    return Moments(n, mean.cpu(), (second / len(x)).cpu())
