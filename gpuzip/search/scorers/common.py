"""What scorers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gpuzip.codecs.codes import Codes

GATHER_COST = 16  # of keys that are sums over all dimensions of a row


def inverse(norms: Tensor) -> Tensor:
    """1 / norms, and 0 where a norm is 0."""
    return norms.reciprocal().nan_to_num_(posinf=0.0)


def normalized(queries: Tensor) -> Tensor:
    """(Q, D) rows divided by their norms; a row of zeros stays one."""
    return queries * inverse(torch.linalg.vector_norm(queries, dim=1, keepdim=True))


def inverse_norms(codes: Codes) -> Tensor:
    """(N,) float32, of every decoded row. Found once, 4 bytes a row beside the norms."""
    norms: Tensor = codes.remembered("inverse norms", lambda: inverse(codes.norms))
    return norms


def minus_squares(codes: Codes) -> Tensor:
    """(N,) float32: -|x|^2 of every decoded row. Found once, as the inverse norms are."""
    squares: Tensor = codes.remembered("minus squares", lambda: codes.norms.square().neg_())
    return squares


def largest_norm(codes: Codes) -> Tensor:
    """() float32, of all decoded rows; 0 of none."""
    largest: Tensor = codes.remembered(
        "largest norm", lambda: codes.norms.max() if len(codes) else codes.norms.sum()
    )
    return largest


def forbid(keys: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
    """keys, in place, -inf where the mask (N,) is False for the row; ids of the shape of keys."""
    return keys if mask is None else keys.masked_fill_(~mask[ids.clamp(0, len(mask) - 1)], float("-inf"))
