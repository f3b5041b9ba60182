"""The values that a search returns, from scores of which a greater one is better."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.few import is_plain
from gpuzip.ops.hamming import ABSENT


def values_of(scores: Tensor, metric: str, absent: bool) -> Tensor:
    """The values that the caller gets: distances for "l2" and "hamming", else scores, which may change."""
    if metric not in ("l2", "hamming"):
        return scores
    if is_plain(scores) and not absent:
        return torch.from_numpy(_distances(scores.numpy(), metric))
    if metric == "l2":
        return scores.neg_().clamp_(min=0).add_(0.0)  # no -0.0
    distances = scores.neg().clamp_(max=2**24).to(torch.int32)
    return distances.masked_fill_(scores.isneginf(), ABSENT) if absent else distances


def _distances(scores: np.ndarray[Any, Any], metric: str) -> np.ndarray[Any, Any]:
    """By numpy, whose calls take less time for few scores."""
    np.negative(scores, out=scores)
    if metric == "l2":
        np.maximum(scores, 0, out=scores)
        scores += 0.0  # no -0.0
        return scores
    np.minimum(scores, 2**24, out=scores)
    return scores.astype(np.int32)
