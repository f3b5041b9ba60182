"""Exact top-k over anything that can score rows: best of each group, then the best groups' members.

The greater a score the better; distances are negated. Fewer than k groups hold a score above the k-th best,
so the k best groups (lowest first among equals) hold the k best rows, and of equal rows the lowest ids. A
forbidden row has the score -inf, so with k allowed rows or more none is among the k best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gpuzip.ops import topk
from gpuzip.search.memory import (
    CANDIDATE_BYTES,
    MORE_CANDIDATES,
    at_once,
    candidate_groups,
    group_size,
    workspace,
)
from gpuzip.search.scorer import Scorer

#: Stages of a search, each slower and surer than the one before; the last leaves no doubt.
STAGES = FIRST, WIDER, EXACT = range(3)


def best(scorer: Scorer, k: int) -> tuple[Tensor, Tensor]:
    """The k best rows of every query: scores (Q, k), ids (Q, k); the lowest id first among equals.

    With fewer than k allowed rows, the last places hold -inf and any id.
    """
    scores, ids, unsure = attempt(scorer, k, FIRST)
    if unsure is not None and len(some := unsure.nonzero().view(-1)):
        scores[some], ids[some] = _best_exact(scorer.exact(some), k)
    return scores, ids


def attempt(scorer: Scorer, k: int, stage: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `best`, and of which queries it is unsure, (Q,) bool, or None: of none. Nothing waits for a GPU.

    stage: of STAGES. A query is unsure where a group that was not taken may hold a better row than the last.
    """
    group, taken = group_size(scorer.N, candidate_groups(k), scorer.gather_cost), candidate_groups(k)
    if stage == WIDER:
        taken *= MORE_CANDIDATES
        stage = EXACT if 4 * taken * group >= scorer.N else stage
    if scorer.is_exact or stage == EXACT or group == 1:
        return *_best_exact(scorer if scorer.is_exact else scorer.exact(), k), None
    values, groups = topk(scorer.group_max(group), taken + 1)
    scores, ids = _best_of_groups(scorer, groups[:, :taken], k, group)
    return scores, ids, scores[:, -1] <= scorer.ceiling(values[:, -1:])[:, 0]


Attempt = Callable[[slice | Tensor, int], tuple[Tensor, Tensor, Tensor | None]]


def until_sure(attempt: Attempt, queries: int | Tensor, steps: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scores and ids of all queries: chunk by chunk, then of the unsure ones again by the next stage.

    attempt: some queries and a stage -> as `attempt` above. queries: how many, or their numbers. steps: how
    many at a time, and in later stages. All chunks are launched before the first wait, which tells who is
    unsure: a GPU is waited for once a stage that is taken, however many chunks there are.
    """
    chunks: Sequence[slice | Tensor]
    chunks = _chunks(queries, steps[0]) if isinstance(queries, int) else queries.split(steps[0])
    found = [attempt(some, FIRST) for some in chunks]
    scores, ids = _joined([part[0] for part in found]), _joined([part[1] for part in found])
    at = _unsure(found)  # of the queries
    for stage in (WIDER, EXACT):
        if at is None or len(at) == 0:
            break
        again = at.split(steps[1])
        found = [attempt(some if isinstance(queries, int) else queries[some], stage) for some in again]
        for some, part in zip(again, found, strict=True):
            scores[some], ids[some] = part[:2]
        unsure = _unsure(found)
        at = None if unsure is None else at[unsure]
    return scores, ids


def _unsure(found: list[tuple[Tensor, Tensor, Tensor | None]]) -> Tensor | None:
    """The numbers of the unsure ones among the queries of these chunks; None, without a wait, of none."""
    if all(unsure is None for _, _, unsure in found):
        return None
    of_chunks = [
        ids.new_zeros(len(ids), dtype=torch.bool) if unsure is None else unsure for _, ids, unsure in found
    ]
    return _joined(of_chunks).nonzero().view(-1)


def _chunks(queries: int, step: int) -> list[slice]:
    return [slice(a, min(a + step, queries)) for a in range(0, max(1, queries), step)]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _best_exact(scorer: Scorer, k: int) -> tuple[Tensor, Tensor]:
    group = group_size(scorer.N, k, scorer.gather_cost)
    first = scorer.group_max(group)
    if group == 1:
        return topk(first, k)
    return _best_of_groups(scorer, topk(first, k)[1], k, group)


def _best_of_groups(scorer: Scorer, groups: Tensor, k: int, group: int) -> tuple[Tensor, Tensor]:
    """The k best rows of each query's groups, of as many queries at a time as the workspace has room for."""
    groups = groups.sort(1).values  # ascending, so that position breaks ties as id does
    places = torch.arange(group, device=groups.device)

    def of_some(queries: slice) -> tuple[Tensor, Tensor]:
        ids = torch.add(places, groups[queries, :, None], alpha=group).flatten(1)
        scores, at = topk(scorer.gather(ids, queries), k)
        return scores, torch.gather(ids, 1, at)

    fit = workspace(groups.device) // (CANDIDATE_BYTES * groups.shape[1] * group)
    found = [of_some(queries) for queries in _chunks(len(groups), at_once(len(groups), fit))]
    return _joined([scores for scores, _ in found]), _joined([ids for _, ids in found])
