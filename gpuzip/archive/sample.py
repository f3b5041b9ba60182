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
_HUGE = 1e4  # times the median length of rows: nothing is learned from longer ones


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
    left_out : int
        Rows of a huge length, which are not among these.
    """

    rows: Tensor
    moments: Moments
    is_all: bool
    unit: bool
    left_out: int = 0


def sample_of(rows: Rows, seed: int) -> Sample:
    """Some of the rows, or all if they are few."""
    most = max(_FEWEST, _ROWS // rows.d)
    part = rows.sample(most, seed).float()
    wide = part if rows.n <= most else rows.sample(max(most, _MOMENTS // rows.d), seed).float()
    sampled = len(part)
    wide = _usual(wide)
    part = wide if rows.n <= most else _usual(part)
    return Sample(
        part, _moments(wide, rows.n), rows.n <= most, bool(are_unit(part).all()), sampled - len(part)
    )


def are_unit(x: Tensor) -> Tensor:
    """Rows (N, D) -> (N,) bool: whether each has length 1, about."""
    lengths: Tensor = torch.linalg.vector_norm(x, dim=1)
    return (lengths - 1).abs() < _UNIT


def _usual(x: Tensor) -> Tensor:
    """The rows that are not beyond all others, from which no step for the others could be found."""
    lengths = torch.linalg.vector_norm(x, dim=1)
    median = lengths.median()
    kept = lengths <= _HUGE * torch.where(median > 0, median, lengths.max())
    return x if bool(kept.all()) else x[kept]


def _moments(x: Tensor, n: int) -> Moments:
    mean = x.double().mean(0)
    second = torch.zeros((x.shape[1], x.shape[1]), dtype=torch.float64, device=x.device)
    for part in x.split(_PART):
        centered = part.double() - mean
        second += matrix_product(torch.mm, centered.T, centered)
    return Moments(n, mean.cpu(), (second / len(x)).cpu())
