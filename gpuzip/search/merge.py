"""The best of several answers, each in order, as one search over all their rows would order them."""

from __future__ import annotations

import torch
from torch import Tensor

#: Metrics whose values are smaller for better rows.
DISTANCES = ("l2", "hamming")


def best_of(values: Tensor, ids: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor]:
    """(..., n) values and ids -> the (..., k) best ones; among equals the one that stands first."""
    best = values.argsort(dim=-1, descending=metric not in DISTANCES, stable=True)[..., :k]
    return values.gather(-1, best), ids.gather(-1, best)


def best_of_two(
    first: tuple[Tensor, Tensor], then: tuple[Tensor, Tensor], k: int, metric: str
) -> tuple[Tensor, Tensor]:
    """The k best of two answers, values and ids; among equals those of the first."""
    return best_of(torch.cat([first[0], then[0]], -1), torch.cat([first[1], then[1]], -1), k, metric)
