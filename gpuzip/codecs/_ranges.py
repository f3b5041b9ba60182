"""Ranges of values that a scalar quantizer covers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.rows import LARGEST_NORM, Rows
from gpuzip.errors import GpuzipError

End = float | Tensor | np.ndarray[Any, Any]
Given = tuple[End, End] | Tensor | np.ndarray[Any, Any]  # (low, high)

RANGES = ("minmax", "quantile", "mse")

_SAMPLE = 16_384  # rows for quantiles and errors
_SHRINKS = [0.95**i for i in range(50)]  # candidate shares of the range from min to max, 1 to 0.08


def find_range(
    who: str, rows: Rows, range: str | Given, per: str, bits: int, tail: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Low and high ends of the ranges, (C,) float32 each on the device of the rows; C is 1 or d."""
    if not isinstance(range, str):
        return _given(who, range, rows)
    if rows.n < 2:
        raise GpuzipError(
            f"{who}: x must have at least 2 rows to find a range, better 100; got {rows.n}. Pass more, or "
            "range=(low, high)."
        )
    if range == "minmax":
        return _extremes(rows, per)
    sample = rows.sample(_SAMPLE, seed).float()
    if per == "tensor":
        sample = sample.view(-1, 1)
    if range == "quantile":
        return _quantiles(sample, tail)
    return _least_error(sample, bits)


def _extremes(rows: Rows, per: str) -> tuple[Tensor, Tensor]:
    low = high = None
    for _, block in rows.blocks():
        least, most = block.amin(0).float(), block.amax(0).float()
        low = least if low is None else torch.minimum(low, least)
        high = most if high is None else torch.maximum(high, most)
    assert low is not None and high is not None
    return (low, high) if per == "dim" else (low.amin(0, keepdim=True), high.amax(0, keepdim=True))


def _quantiles(sample: Tensor, tail: float) -> tuple[Tensor, Tensor]:
    """The values that a share `tail` of the sample, or a little less, lies beyond."""
    out = int(tail * (len(sample) - 1))
    low = [column.kthvalue(out + 1).values for column in sample.T]
    high = [column.kthvalue(len(column) - out).values for column in sample.T]
    return torch.stack(low), torch.stack(high)


def _least_error(sample: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The shrunken range of least squared error, per column."""
    low, high = sample.amin(0), sample.amax(0)
    middle, reach = (low + high) / 2, (high - low) / 2
    best = torch.ones_like(middle)
    least = torch.full_like(middle, float("inf"))
    for shrink in _SHRINKS:
        start = middle - shrink * reach
        step = (2 * shrink * reach / (1 << bits)).clamp(min=1e-30)
        cell = ((sample - start) / step).floor_().clamp_(0, (1 << bits) - 1).add_(0.5)
        error = (cell * step + start).sub_(sample).square_().mean(0)
        best = torch.where(error < least, shrink, best)
        least = torch.minimum(least, error)
    return middle - best * reach, middle + best * reach


def check_given(who: str, given: Given) -> None:
    """Raise GpuzipError unless a given range is (low, high), finite and in order."""
    if len(given) != 2:
        raise GpuzipError(f"{who}: range must be (low, high); got {len(given)} entries.")
    low, high = (torch.as_tensor(limit, device="cpu") for limit in given)
    fits = low.ndim <= 1 and low.shape == high.shape and not low.is_complex()
    small = fits and all(bool((limit.abs() < LARGEST_NORM).all()) for limit in (low, high))
    if not (small and bool((low <= high).all())):
        raise GpuzipError(
            f"{who}: range must be two numbers whose squares fit in float32, or two vectors of d, with "
            f"low <= high; got low {tuple(low.shape)} and high {tuple(high.shape)}."
        )


def _given(who: str, given: Given, rows: Rows) -> tuple[Tensor, Tensor]:
    low, high = (
        torch.as_tensor(limit, dtype=torch.float32, device=rows.device).reshape(-1) for limit in given
    )
    if len(low) not in (1, rows.d):
        raise GpuzipError(
            f"{who}: range must have 1 entry, or {rows.d} like the columns of x; got {len(low)}."
        )
    return low, high
