"""Arguments of every kind, checked: whole numbers, metrics, k, masks."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gpuzip.errors import DtypeError, GpuzipError

Metric = Literal["l2", "ip", "cosine"]
METRICS: tuple[str, ...] = get_args(Metric)


def whole(who: str, name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number, numpy's too, as an int; raises GpuzipError."""
    fits = is_whole(value) and least <= value
    if not fits or (most is not None and value > most):
        needed = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise GpuzipError(f"{who}: {name} is {value!r}, a whole number {needed} is needed.")
    return int(value)


def is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_mask(who: str, mask: Any, n: int, device: torch.device) -> Tensor:
    """A mask of n rows on `device`; an array has no device and is moved there."""
    if not isinstance(mask, Tensor | np.ndarray):
        raise DtypeError(
            f"{who}: mask came as {type(mask).__name__}, a torch tensor or numpy array is needed. "
            "Wrap it in torch.as_tensor."
        )
    if str(mask.dtype).removeprefix("torch.") != "bool":
        raise DtypeError(
            f"{who}: mask came as {str(mask.dtype).removeprefix('torch.')}, bool is needed, True for the "
            "rows that may be found. Compare it, for example mask != 0."
        )
    if tuple(mask.shape) != (n,):
        raise GpuzipError(f"{who}: mask came with shape {tuple(mask.shape)}, ({n},) is needed, one a row.")
    if isinstance(mask, Tensor):
        if mask.device != device:
            raise GpuzipError(
                f"{who}: mask came on {mask.device}, the codes are on {device}. Move it with .to()."
            )
        return mask
    return torch.from_numpy(np.ascontiguousarray(mask).copy()).to(device)


def check_metric(who: str, metric: str, known: tuple[str, ...] = METRICS) -> None:
    if metric not in known:
        raise GpuzipError(f"{who}: metric is {metric!r}, one of {', '.join(known)} is needed.")


def check_k(who: str, k: int, n: int) -> int:
    """k clamped to n rows; k below 1 is an error."""
    return min(whole(who, "k", k), n)
