"""Row numbers as callers give them: integers of any type and layout are ids, bools alone are a mask."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.device import is_capturing

Ids = Sequence[int] | np.ndarray[Any, Any] | Tensor
Index = int | slice | Ids

_FEW = 32  # ids whose least and most Python finds faster than torch
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


def as_index(who: str, index: Index, n: int, device: torch.device) -> slice | Tensor:
    """A slice of `n` rows, or a tensor on the device: int64 ids, none negative, or a bool mask.

    Raises IndexError for ids that are no rows, and TypeError for anything but ints, slices, ids and masks.
    """
    if isinstance(index, slice):
        rows = range(*index.indices(n))
        return index if rows.step > 0 else torch.tensor(list(rows), dtype=torch.int64, device=device)
    if isinstance(index, int | np.integer) or (isinstance(index, Tensor | np.ndarray) and index.ndim == 0):
        return _one_row(who, index, n)
    ids = _tensor(who, index).to(device)
    if ids.dtype != torch.bool:
        return _in_range(who, ids, n)
    if ids.shape != (n,):
        raise IndexError(f"{who}: a mask must have shape ({n},), one per row; got {tuple(ids.shape)}.")
    return ids


def row_ids(who: str, ids: Ids, n: int, device: torch.device) -> Tensor:
    """(R,) int64 ids on the device, none negative. Raises IndexError for ids that are no rows."""
    rows = _tensor(who, ids)
    if rows.ndim != 1 or rows.dtype == torch.bool:
        raise TypeError(f"{who}: ids must be a list or tensor of row numbers; got {ids!r}.")
    return _in_range(who, rows if rows.device == device else rows.to(device), n)


def _one_row(who: str, index: Any, n: int) -> slice:
    if str(getattr(index, "dtype", "int64")).removeprefix("torch.") not in _INTEGERS:
        raise TypeError(f"{who}: an index must be a whole number; got {index!r}.")
    row = operator.index(index)
    if not -n <= row < n:
        raise IndexError(f"{who}: row must be from {-n} to {n - 1}, as there are {n} rows; got {row}.")
    return slice(row % n, row % n + 1)


def _tensor(who: str, index: Any) -> Tensor:
    """Int64 ids, or bools."""
    if isinstance(index, Tensor):
        if index.dtype == torch.int64:
            return index
        name = str(index.dtype).removeprefix("torch.")
        if name != "bool" and name not in _INTEGERS:
            raise _wrong(who, index)
        return index if name == "bool" else index.to(torch.int64)
    try:
        array = np.asarray(index)
    except ValueError as error:  # rows of different lengths
        raise _wrong(who, index) from error
    if array.size == 0 and not isinstance(index, np.ndarray):
        return torch.empty(array.shape, dtype=torch.int64, device="cpu")
    if array.dtype.kind not in "iub":
        raise _wrong(who, index)
    native = np.array(array, dtype=bool if array.dtype.kind == "b" else np.int64, order="C")
    return torch.from_numpy(native)


def _wrong(who: str, index: Any) -> TypeError:
    return TypeError(f"{who}: an index must be an int, a slice, ids or a mask; got {index!r:.200}.")


def _in_range(who: str, ids: Tensor, n: int) -> Tensor:
    if (count := ids.numel()) and not is_capturing(ids.device):
        if count == 1:
            ends = [ids.item()]
        else:
            ends = ids.flatten().tolist() if count <= _FEW else [int(end) for end in ids.aminmax()]
        least, most = min(ends), max(ends)
        if not -n <= least <= most < n:
            raise IndexError(
                f"{who}: ids must be from {-n} to {n - 1}, as there are {n} rows; got {least} to {most}."
            )
        if least >= 0:
            return ids
    return torch.where(ids < 0, ids + n, ids)
