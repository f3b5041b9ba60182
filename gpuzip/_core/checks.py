"""Checks of arguments: whole numbers, metrics, k, masks."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gpuzip.errors import DtypeError, GpuzipError

Metric = Literal["l2", "ip", "cosine"]
SearchMetric = Literal["cosine", "ip", "l2", "hamming"]
METRICS: tuple[Metric, ...] = get_args(Metric)


def whole(who: str, name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """`value` as an int, if it is a whole number (numpy's included) in range; else raises GpuzipError."""
    fits = is_whole(value) and least <= value
    if not fits or (most is not None and value > most):
        needed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise GpuzipError(f"{who}: {name} must be a whole number {needed}; got {value!r}.")
    return int(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def printable(text: str) -> str:
    """Text that a file says, with control characters escaped, so that printing it does nothing else."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_mask(who: str, mask: Any, n: int, device: torch.device) -> Tensor:
    """The mask of n rows on `device`; a numpy array is copied there."""
    if not isinstance(mask, Tensor | np.ndarray):
        raise DtypeError(
            f"{who}: mask must be a torch tensor or numpy array; got {type(mask).__name__}. "
            "Wrap it in torch.as_tensor."
        )
    if str(mask.dtype).removeprefix("torch.") != "bool":
        raise DtypeError(
            f"{who}: mask must be bool, True for the rows that may be found; "
            f"got {str(mask.dtype).removeprefix('torch.')}. Compare it, for example mask != 0."
        )
    if tuple(mask.shape) != (n,):
        raise GpuzipError(f"{who}: mask must have shape ({n},), one per row; got {tuple(mask.shape)}.")
    if isinstance(mask, Tensor):
        if mask.device != device:
            raise GpuzipError(
                f"{who}: mask must be on {device} like the codes; got {mask.device}. Move it with .to()."
            )
        return mask
    return torch.from_numpy(np.ascontiguousarray(mask).copy()).to(device)


def check_metric(who: str, metric: str, known: tuple[str, ...] = METRICS) -> None:
    if metric not in known:
        raise GpuzipError(f"{who}: metric must be one of {', '.join(known)}; got {metric!r}.")


def check_k(who: str, k: int, n: int) -> int:
    """k, at most n; raises GpuzipError if k is below 1."""
    return min(whole(who, "k", k), n)
