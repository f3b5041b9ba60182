"""The result of a query for an unknown word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip.errors import GpuzipError

Unknown = str | Tensor | np.ndarray[Any, Any] | Sequence[float]


def checked_unknown(unknown: Unknown, d: int) -> str | Tensor:
    """Return "error", "none" or a (D,) float32 vector. Raises GpuzipError for anything else."""
    if isinstance(unknown, str):
        if unknown not in ("error", "none"):
            raise GpuzipError(f'WordVectors: unknown must be "error", "none" or a vector; got {unknown!r}.')
        return unknown
    try:
        vector = torch.as_tensor(unknown, dtype=torch.float32, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise GpuzipError(
            f'WordVectors: unknown must be "error", "none" or a vector; got {unknown!r}.'
        ) from error
    if vector.shape != (d,):
        raise GpuzipError(f"WordVectors: unknown must have shape ({d},); got {tuple(vector.shape)}.")
    return vector
