"""What scorers share."""

from __future__ import annotations

import torch
from torch import Tensor

GATHER_COST = 16  # of keys that are sums over all dimensions of a row


def inverse(norms: Tensor) -> Tensor:
    """1 / norms, and 0 where a norm is 0."""
    return torch.where(norms > 0, 1 / norms, 0)


def forbid(keys: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
    """keys, in place, -inf where the mask (N,) is False for the row; ids of the shape of keys."""
    return keys if mask is None else keys.masked_fill_(~mask[ids.clamp(0, len(mask) - 1)], float("-inf"))
