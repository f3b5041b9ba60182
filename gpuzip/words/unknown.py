"""What stands for a word that is not there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip.errors import GpuzipError

Unknown = str | Tensor | np.ndarray[Any, Any] | Sequence[float]


def checked_unknown(unknown: Unknown, d: int) -> str | Tensor:
    """ "error", "none", or a vector (D,) float32. Raises GpuzipError for anything else."""
    if isinstance(unknown, str):
        if unknown not in ("error", "none"):
            raise GpuzipError(f'words: unknown must be "error", "none" or a vector; got {unknown!r}.')
        return unknown
    try:
        vector = torch.as_tensor(unknown, dtype=torch.float32, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise GpuzipError(f'words: unknown must be "error", "none" or a vector; got {unknown!r}.') from error
    if vector.shape != (d,):
        raise GpuzipError(f"words: unknown must be a vector of shape ({d},); got {tuple(vector.shape)}.")
    return vector
