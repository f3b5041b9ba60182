"""Helpers shared by scorers."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip.search.packed import Packed

GATHER_COST = 16  # for scores that are sums over all dimensions of a row


def inverse(norms: Tensor) -> Tensor:
    """1 / norms, and 0 where a norm is 0."""
    return norms.reciprocal().nan_to_num_(posinf=0.0)


def normalized(queries: Tensor) -> Tensor:
    """(Q, D) rows divided by their norms; a row of zeros stays zero."""
    return queries * inverse(torch.linalg.vector_norm(queries, dim=1, keepdim=True))


def inverse_norms(packed: Packed) -> Tensor:
    """(N,) float32 inverse norms of decoded rows. Computed once and kept, 4 more bytes per row."""
    norms: Tensor = packed.remembered("inverse norms", lambda: inverse(packed.norms))
    return norms


def minus_squares(packed: Packed) -> Tensor:
    """(N,) float32: -|x|^2 of decoded rows. Computed once and kept, 4 more bytes per row."""
    squares: Tensor = packed.remembered("minus squares", lambda: packed.norms.square().neg_())
    return squares


def largest_norm(packed: Packed) -> Tensor:
    """() float32: the largest norm of decoded rows; 0 if there are no rows."""
    largest: Tensor = packed.remembered(
        "largest norm", lambda: packed.norms.max() if len(packed) else packed.norms.sum()
    )
    return largest


def forbid(scores: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
    """Set scores in place to -inf where the (N,) mask forbids the row; ids has the shape of scores."""
    return scores if mask is None else scores.masked_fill_(~mask[ids.clamp(0, len(mask) - 1)], float("-inf"))
