"""What can score rows, and one that has every row scored exactly."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from gpuzip.ops import max_of_groups
from gpuzip.search.memory import workspace

ALL = slice(None)  # the queries of a scorer


class Scorer(Protocol):
    """Scores of N rows for Q queries, of which only small parts ever exist at a time.

    Finite, or -inf for a row that a mask forbids.
    """

    N: int
    Q: int
    is_exact: bool
    """Whether `group_max` gives the very scores of `gather`, to the bit."""
    gather_cost: int
    """What gathering one score costs, in look-ups of a table; groups are smaller where it is dear."""

    def group_max(self, group: int) -> Tensor:
        """(Q, ceil(N / group)): the best score of each `group` consecutive rows, or an estimate of it.

        Estimates may have a scale of their own for each query, above 0, and a shift; `ceiling` knows them.
        """

    def ceiling(self, estimate: Tensor) -> Tensor:
        """The greatest score that a group with this `group_max` can hold: (Q, 1) -> (Q, 1)."""

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        """The final scores of rows ids for these queries: (Q', R) int64 -> (Q', R).

        -inf for ids that are no rows.
        """

    def exact(self, queries: Tensor | None = None) -> Scorer:
        """An exact scorer of some of the queries, named by index on their device, or of all."""


class Exhaustive:
    """Scores every row by `gather`, a block at a time: for a scorer without a faster exact scan."""

    is_exact = True

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
