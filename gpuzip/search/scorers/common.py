"""Helpers shared by scorers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gpuzip._core.device import is_capturing
from gpuzip._core.few import is_plain, unit_rows
from gpuzip.ops import topk
from gpuzip.ops.candidates import closest
from gpuzip.search.packed import Packed
from gpuzip.search.scorer import Attempted, Scorer

_CLOSE = 16  # rows beyond 5/4 k whose estimates are taken, if these are close
_MORE = 32  # rows beyond 2 k whose estimates are taken
_ROWS_PER_MORE = 1 << 12  # one more is taken per so many rows, as more of them are nearly as good
KEPT = 1 << 20  # values of so few rows that they are kept as floats, 4 MB
LOST = 2.0**-62  # squares of smaller values may underflow, so norms can be too low by this per dimension
GATHER_COST = 16  # for scores that are sums over all dimensions of a row


def inverse(norms: Tensor) -> Tensor:
    """1 / norms, and 0 where a norm is 0."""
    return norms.reciprocal().nan_to_num_(posinf=0.0)


def normalized(queries: Tensor) -> Tensor:
    """(Q, D) rows divided by their norms; a row of zeros stays zero."""
    if is_plain(queries):
        return torch.from_numpy(unit_rows(queries.numpy()))
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


def sound_rows(packed: Packed, by: str, sound: Callable[[], Tensor]) -> Tensor | None:
    """(N,) bool: the rows whose scores are numbers; None if all are. Found once and kept, if some are not.

    by: what tells them. sound: finds them. Codes that were altered may decode to NaN or inf, which would be
    the best score of a group and hide the other rows: such a row is forbidden, as by a mask.
    """

    def found() -> Tensor | None:
        rows = sound()
        return None if not is_capturing(packed.device) and bool(rows.all()) else rows

    rows: Tensor | None = packed.remembered(f"sound rows by {by}", found)
    return rows


def both(mask: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The rows that both masks allow."""
    if mask is None or other is None:
        return other if mask is None else mask
    return mask & other


def proven(found: tuple[Tensor, Tensor] | None) -> Attempted | None:
    """Exact scores and ids, which need no proof, as an attempt; None stays None."""
    return None if found is None else (*found, None)


def forbid(scores: Tensor, ids: Tensor, mask: Tensor | None) -> Tensor:
    """Set scores in place to -inf where the (N,) mask forbids the row; ids has the shape of scores."""
    return scores if mask is None else scores.masked_fill_(~mask[ids.clamp(0, len(mask) - 1)], float("-inf"))


def estimates_hold(scale: Tensor | float, D: int) -> bool:
    """Whether no row of D columns is so short, by its inverse norm, that its norm may have lost digits."""
    return float(scale if isinstance(scale, float) else scale.max()) * LOST < 2.0**-8 / D


def estimates_for(k: int, N: int) -> int:
    """How many rows to take by their estimates: enough to prove nearly every query."""
    return min(N, 2 * k + _MORE + N // _ROWS_PER_MORE)


def closest_for(k: int, N: int) -> int:
    """The same for estimates that are off by float32 rounding alone."""
    return min(N, k + k // 4 + _CLOSE)


def of_estimates(scorer: Scorer, found: tuple[Tensor, Tensor], k: int) -> Attempted:
    """Score the rows with the best estimates exactly, and see whether others may be better.

    found: estimates (Q, taken), the last places -inf if there are no more, and their rows (Q, taken).
    """
    estimates, rows = found
    if (best := closest(estimates, rows, scorer.ceiling(estimates), k, scorer.N, scorer.gather)) is not None:
        return best
    rows = rows.masked_fill(estimates.isneginf(), scorer.N)  # there are no more
    rows = rows.sort(1).values  # ascending, so that position breaks ties as id does
    scores, at = topk(scorer.gather(rows), k)
    return scores, rows.gather(1, at), scores[:, -1] <= scorer.ceiling(estimates[:, -1:])[:, 0]
