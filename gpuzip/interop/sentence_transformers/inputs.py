"""Checks of callers' arguments: matrices, lists of rows, ranges."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.rows import Matrix
from gpuzip.errors import DtypeError, GpuzipError

_BYTES = {"int8": (-128, 127), "uint8": (0, 255)}
_INTEGERS = ("int16", "int32", "int64", "uint16", "uint32", "uint64")
FLOATS = ("float16", "bfloat16", "float32", "float64")


def stacked(who: str, name: str, x: Any) -> Matrix:
    """Return x, or stack the rows of a list."""
    if isinstance(x, list):
        try:
            x = torch.stack(x) if x and isinstance(x[0], Tensor) else np.array(x)
        except (TypeError, ValueError, RuntimeError) as error:
            raise GpuzipError(f"{who}: the rows of {name} must have one shape: {error}.") from error
    if not isinstance(x, Tensor | np.ndarray):
        raise DtypeError(
            f"{who}: {name} must be a torch tensor, a numpy array or a list of those; got {type(x).__name__}."
        )
    return x


def floats(who: str, name: str, x: Matrix) -> Tensor:
    """Return a vector or matrix without NaN as a tensor, which shares an array's memory if possible."""
    if dtype_name(x) not in FLOATS:
        raise DtypeError(
            f"{who}: {name} must be float16, bfloat16, float32 or float64; got {dtype_name(x)}. "
            "Convert it, for example with x.float()."
        )
    if x.ndim not in (1, 2) or x.shape[-1] == 0:
        raise GpuzipError(
            f"{who}: {name} must be (N, D) or (D,) with at least one column; got shape {tuple(x.shape)}."
        )
    if isinstance(x, np.ndarray):
        native = x.dtype.newbyteorder("=") if x.dtype.kind == "f" else np.dtype(np.float32)  # bfloat16
        x = torch.from_numpy(np.require(x, native, ["C", "W"]))
    x = x.detach()
    if bool(torch.linalg.vector_norm(x).isnan()):
        row = int(x.isnan().view(-1, x.shape[-1]).any(1).nonzero()[0])
        raise GpuzipError(f"{who}: row {row} of {name} holds NaN. Drop such rows or replace the values.")
    return x


def as_bytes(who: str, name: str, x: Matrix, precision: str | None) -> Matrix:
    """Return wider integers, which datasets and lists have, as int8 or uint8 if no value is lost.

    precision decides, else the values: below 0 they are int8, above 127 uint8. Raises DtypeError.
    """
    if dtype_name(x) in _BYTES or dtype_name(x) not in _INTEGERS:
        return x
    values = x.long() if isinstance(x, Tensor) else torch.from_numpy(np.array(x, np.int64))
    low, high = (int(end) for end in values.aminmax()) if values.numel() else (0, 0)
    named = None if precision is None else ("uint8" if precision in ("uint8", "ubinary") else "int8")
    kind = named or ("int8" if low < 0 else "uint8")
    least, most = _BYTES[kind]
    if not least <= low <= high <= most:
        raise DtypeError(
            f"{who}: {name} must be {kind}, {least} to {most}; got {dtype_name(x)} from {low} to {high}. "
            "Make it with quantize_embeddings."
        )
    if named is None and 0 <= low <= high <= 127:
        raise DtypeError(
            f"{who}: {name} must be int8 or uint8; got {dtype_name(x)} whose values may be either. "
            "Cast it to the one that it was."
        )
    return values.to(getattr(torch, kind))


def dtype_name(x: Matrix) -> str:
    """Return the name of a dtype, the same for tensors and arrays."""
    return str(x.dtype).removeprefix("torch.") if isinstance(x, Tensor) else str(x.dtype.name)


def limits_of(
    who: str, precision: str, parts: Sequence[Tensor], ranges: Any, calibration: Any
) -> Tensor | None:
    """Return the given ranges, or those of calibration rows or all parts: (2, D) float32 on the CPU."""
    D = parts[0].shape[-1] if parts else None
    if ranges is not None:
        return checked_ranges(who, ranges, D)
    if calibration is not None:
        parts = [floats(who, "calibration_embeddings", stacked(who, "calibration_embeddings", calibration))]
        if parts[0].ndim != 2 or len(parts[0]) == 0:
            raise GpuzipError(
                f"{who}: calibration_embeddings must be (n, D) with at least one row; got "
                f"{tuple(parts[0].shape)}. Pass rows like those of the corpus."
            )
    else:
        count = sum(1 if part.ndim == 1 else len(part) for part in parts)
        if count == 0:
            return None
        _check_count(who, precision, count)
    filled = [part for part in parts if len(part)]
    low, high = zip(
        *((part.amin(0).float().cpu(), part.amax(0).float().cpu()) for part in filled), strict=True
    )
    return checked_ranges(who, torch.stack([torch.stack(low).amin(0), torch.stack(high).amax(0)]), D)


def _check_count(who: str, precision: str, count: int) -> None:
    if count == 1:
        raise GpuzipError(
            f"{who}: a single embedding has no ranges for {precision}. Pass ranges or calibration_embeddings."
        )
    if count < 100:
        warnings.warn(
            f"{who}: ranges for {precision} are taken from {count} embeddings; at least 100 are "
            "recommended. Pass ranges, or more calibration_embeddings.",
            stacklevel=4,
        )


def checked_ranges(who: str, ranges: Any, D: int | None) -> Tensor:
    """Return ranges as (2, D) float32 on the CPU. Raises GpuzipError unless finite and ascending."""
    try:
        given = ranges if isinstance(ranges, Tensor) else torch.from_numpy(np.array(ranges, np.float32))
        found = given.detach().cpu().float()
    except (TypeError, ValueError) as error:
        raise GpuzipError(f"{who}: ranges must be numbers of shape (2, {D or 'D'}): {error}.") from error
    if found.ndim != 2 or len(found) != 2 or found.shape[1] != (D or found.shape[1]):
        raise GpuzipError(
            f"{who}: ranges must have shape (2, {D or 'D'}), the minimum and the maximum of every "
            f"column; got {tuple(found.shape)}."
        )
    wrong = (~(found[1] - found[0]).isfinite() | (found[1] < found[0])).nonzero().view(-1)
    if len(wrong):
        low, high = found[:, wrong[0]].tolist()
        raise GpuzipError(
            f"{who}: the range of column {int(wrong[0])} must be two finite numbers in ascending "
            f"order; got {low} and {high}."
        )
    return found
