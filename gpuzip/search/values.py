"""The values that a search returns, from scores of which a greater one is better."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip.ops.hamming import ABSENT


def values_of(scores: Tensor, metric: str, absent: bool) -> Tensor:
    """The values that the caller gets: distances for "l2" and "hamming", else the scores."""
    if metric == "l2":
        return scores.neg_().clamp_(min=0).add_(0.0)  # no -0.0
    if metric == "hamming":
        distances = scores.neg().clamp_(max=2**24).to(torch.int32)
        return distances.masked_fill_(scores.isneginf(), ABSENT) if absent else distances
    return scores
