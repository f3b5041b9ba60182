"""The best of several answers, each in order, as one search over all their rows would order them."""

from __future__ import annotations

from torch import Tensor

#: Metrics whose values are smaller for better rows.
DISTANCES = ("l2", "hamming")


def best_of(values: Tensor, ids: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """(..., n) values and ids -> the (..., k) best ones; among equals the one that stands first."""
    best = values.argsort(dim=-1, descending=metric not in DISTANCES, stable=True)[..., :k]
    return values.gather(-1, best), ids.gather(-1, best)
