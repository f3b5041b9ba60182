"""Scores of rows with fewer dimensions than the queries: scores of projected queries, scaled and shifted."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip.search.scorer import ALL, Scorer
from gpuzip.search.scorers.common import inverse


class ProjectedScorer:
    """Scores times a factor of at least 0 plus a summand, both (Q, 1), one per query."""

    is_exact: bool
    gather_cost: int

    def __init__(self, scorer: Scorer, factor: Tensor, summand: Tensor) -> None:
        self._scorer, self._factor, self._summand = scorer, factor, summand
        self.N, self.Q, self.is_exact = scorer.N, scorer.Q, scorer.is_exact
        self.gather_cost = scorer.gather_cost

    def group_max(self, group: int) -> Tensor:
        """Scores of groups; estimates keep the scale of the wrapped scorer."""
        best = self._scorer.group_max(group)
        return self._given(best) if self.is_exact else best

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate if self.is_exact else self._given(self._scorer.ceiling(estimate))

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        return self._given(self._scorer.gather(ids, queries), queries)

    def one_pass(self, k: int) -> None:
        return None

    def exact(self, queries: Tensor | None = None) -> Scorer:
        factor, summand = self._factor, self._summand
        if queries is not None:
            factor, summand = factor[queries], summand[queries]
        return ProjectedScorer(self._scorer.exact(queries), factor, summand)

    def _given(self, scores: Tensor, queries: slice = ALL) -> Tensor:
        """Scale and shift scores of these queries in place; the -inf of forbidden rows stays."""
        forbidden = scores.isneginf()
        scores.mul_(self._factor[queries]).add_(self._summand[queries])
        return scores.masked_fill_(forbidden, float("-inf"))


def of_projected(scorer: Scorer, queries: Tensor, rotated: Tensor, metric: str) -> Scorer:
    """Scores for (Q, D) queries from a scorer for (Q, width) projected ones.

    With y a row's code, x = R'y: q.x = Rq.y and |x| = |y|; |q - x|^2 = |Rq - y|^2 + |q|^2 - |Rq|^2.
    """
    if metric not in ("l2", "cosine"):
        return scorer
    whole, part = (torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (queries, rotated))
    if metric == "cosine":
        return ProjectedScorer(scorer, part * inverse(whole), torch.zeros_like(whole))
    left_out = (whole.double().square() - part.double().square()).clamp(min=0).float()
    return ProjectedScorer(scorer, torch.ones_like(whole), -left_out)
