"""What scorers share."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip.search.packed import Packed

GATHER_COST = 16  # of scores that are sums over all dimensions of a row


def inverse(norms: Tensor) -> Tensor:
    """1 / norms, and 0 where a norm is 0."""
    return norms.reciprocal().nan_to_num_(posinf=0.0)


def normalized(queries: Tensor) -> Tensor:
    """(Q, D) rows divided by their norms; a row of zeros stays one."""
    return queries * inverse(torch.linalg.vector_norm(queries, dim=1, keepdim=True))


def inverse_norms(packed: Packed) -> Tensor:
    """(N,) float32, of every decoded row. Found once, 4 bytes a row beside the norms."""
    norms: Tensor = packed.remembered("inverse norms", lambda: inverse(packed.norms))
    return norms


def minus_squares(packed: Packed) -> Tensor:
    """(N,) float32: -|x|^2 of every decoded row. Found once, as the inverse norms are."""
    squares: Tensor = packed.remembered("minus squares", lambda: packed.norms.square().neg_())
    return squares


def largest_norm(packed: Packed) -> Tensor:
    """() float32, of all decoded rows; 0 of none."""
    largest: Tensor = packed.remembered(
        "largest norm", lambda: packed.norms.max() if len(packed) else packed.norms.sum()
    )
    return largest


def forbid(scores: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
    """scores, in place, -inf where the mask (N,) is False for the row; ids of the shape of scores."""
    return scores if mask is None else scores.masked_fill_(~mask[ids.clamp(0, len(mask) - 1)], float("-inf"))
