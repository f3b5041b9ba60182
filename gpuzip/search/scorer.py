"""The protocol of scorers, and a scorer that scores every row exactly."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from gpuzip._core.device import is_capturing
from gpuzip.ops import max_of_groups
from gpuzip.search.memory import workspace

ALL = slice(None)  # the queries of a scorer

#: Scores (Q, k), ids (Q, k), and which queries are not proven: (Q,) bool, or None if all are.
Attempted = tuple[Tensor, Tensor, Tensor | None]


class Scorer(Protocol):
    """Scores of N rows for Q queries; only small parts of them exist in memory at a time.

    A score is finite, or -inf for a row that the mask forbids.
    """

    N: int
    Q: int
    is_exact: bool
    """Whether `group_max` returns the same scores as `gather`, bit for bit."""
    gather_cost: int
    """The cost of gathering one score, in table look-ups. Groups are smaller if it is high."""

    def group_max(self, group: int) -> Tensor:
        """(Q, ceil(N / group)): the best score among each `group` consecutive rows, or an estimate of it.

        Estimates may be scaled by a positive factor and shifted per query; `ceiling` undoes that.
        """

    def ceiling(self, estimate: Tensor) -> Tensor:
        """Upper bound of the scores in a group with this `group_max`: (Q, 1) -> (Q, 1)."""

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        """The exact scores of the rows `ids` for these queries: (Q', R) int64 -> (Q', R).

        Ids out of range score -inf.
        """

    def exact(self, queries: Tensor | None = None) -> Scorer:
        """An exact scorer for all queries, or for those at the given indices, on their device."""

    def one_pass(self, k: int) -> Attempted | None:
        """What `exact.attempt` returns, in one pass over the codes; None where there is no loop for it."""


class Exhaustive:
    """Scores every row by `gather`, block by block, for scorers without a faster exact scan."""

    is_exact = True
    gather_cost: int

    def __init__(self, scorer: Scorer, device: torch.device) -> None:
        self._scorer, self._device, self.N, self.Q = scorer, device, scorer.N, scorer.Q
        self.gather_cost = scorer.gather_cost

    def group_max(self, group: int) -> Tensor:
        step = max(1, workspace(self._device) // (64 * group * max(1, self.Q))) * group
        parts = []
        for start in range(0, self.N, step):
            ids = torch.arange(start, min(start + step, self.N), device=self._device)
            parts.append(max_of_groups(self._scorer.gather(ids.expand(self.Q, -1)).T, group))
        return torch.cat(parts, 1)

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        return self._scorer.gather(ids, queries)

    def exact(self, queries: Tensor | None = None) -> Scorer:
        return self._scorer.exact(queries)

    def one_pass(self, k: int) -> None:
        return None


def exact_in_a_graph(scorer: Scorer, device: torch.device) -> Scorer:
    """The scorer itself; while a CUDA graph is captured, one that scores every row exactly.

    A captured graph cannot read which queries to search again.
    """
    return Exhaustive(scorer, device) if is_capturing(device) else scorer


def in_one_pass(scorer: Scorer, k: int) -> Attempted | None:
    """What the scorer's `one_pass` returns; None for a scorer of a codec outside gpuzip that has none."""
    one_pass = getattr(scorer, "one_pass", None)
    found: Attempted | None = None if one_pass is None else one_pass(k)
    return found
