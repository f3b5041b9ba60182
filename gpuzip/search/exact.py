"""Exact top-k for any scorer: find the best score per group of rows, then score the rows of the best groups.

A greater score is better; distances are negated. Fewer than k groups hold a score above the k-th best, so the
k best groups hold the k best rows. Ties go to the lowest group and the lowest id. A row that the mask forbids
scores -inf, so it is never among the k best if there are k allowed rows.
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
    chunks,
    group_size,
    workspace,
)
from gpuzip.search.scorer import Scorer, in_one_pass

#: Stages of a search. Each is slower and proves more queries than the one before; the last proves all.
STAGES = FIRST, WIDER, EXACT = range(3)


def best(scorer: Scorer, k: int) -> tuple[Tensor, Tensor]:
    """The k best rows per query: scores (Q, k), ids (Q, k); among equal scores the lowest id comes first.

    If there are fewer than k allowed rows, the last places hold -inf and an arbitrary id.
    """
    scores, ids, unsure = attempt(scorer, k, FIRST)
    if unsure is not None and len(some := unsure.nonzero().view(-1)):
        scores[some], ids[some] = _best_exact(scorer.exact(some), k)
    return scores, ids


def attempt(scorer: Scorer, k: int, stage: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Scores and ids as `best` returns them, and which queries are not proven: (Q,) bool, or None if all are.

    stage: one of STAGES. A query is not proven if a group that was not taken may hold a better row than its
    last one. Nothing here waits for a GPU.
    """
    if stage == FIRST and (found := in_one_pass(scorer, k)) is not None:
        return found
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


def until_sure(
    attempt: Attempt,
    queries: int | Tensor,
    steps: tuple[int, int],
    report: Callable[[int], object] = lambda done: None,
) -> tuple[Tensor, Tensor]:
    """Scores and ids of all queries, chunk by chunk; queries that are not proven go on to the next stage.

    attempt: takes some queries and a stage, and returns what `attempt` above returns. queries: their number,
    or a tensor of their numbers. steps: queries per chunk in the first stage and in later ones. All chunks of
    a stage are launched before the result is read, so a GPU is waited for once per stage. report: called
    with the queries that the first stage has answered.
    """
    parts: Sequence[slice | Tensor]
    parts = chunks(queries, steps[0]) if isinstance(queries, int) else queries.split(steps[0])
    found, done = [], 0
    for some in parts:
        found.append(attempt(some, FIRST))
        done += len(found[-1][1])
        report(done)
    scores, ids = _joined([part[0] for part in found]), _joined([part[1] for part in found])
    at = _unsure(found)  # numbers of the queries that are not proven
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
    """Numbers of the queries, over all chunks, that are not proven; None, without a wait, if all are."""
    if all(unsure is None for _, _, unsure in found):
        return None
    of_chunks = [
        ids.new_zeros(len(ids), dtype=torch.bool) if unsure is None else unsure for _, ids, unsure in found
    ]
    return _joined(of_chunks).nonzero().view(-1)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _best_exact(scorer: Scorer, k: int) -> tuple[Tensor, Tensor]:
    group = group_size(scorer.N, k, scorer.gather_cost)
    first = scorer.group_max(group)
    if group == 1:
        return topk(first, k)
    return _best_of_groups(scorer, topk(first, k)[1], k, group)


def _best_of_groups(scorer: Scorer, groups: Tensor, k: int, group: int) -> tuple[Tensor, Tensor]:
    """The k best rows of each query's groups, for as many queries at a time as fit in the workspace."""
    groups = groups.sort(1).values  # ascending, so that position breaks ties as id does
    places = torch.arange(group, device=groups.device)

    def of_some(queries: slice) -> tuple[Tensor, Tensor]:
        ids = torch.add(places, groups[queries, :, None], alpha=group).flatten(1)
        scores, at = topk(scorer.gather(ids, queries), k)
        return scores, torch.gather(ids, 1, at)

    fit = workspace(groups.device) // (CANDIDATE_BYTES * groups.shape[1] * group)
    found = [of_some(queries) for queries in chunks(len(groups), at_once(len(groups), fit))]
    return _joined([scores for scores, _ in found]), _joined([ids for _, ids in found])
