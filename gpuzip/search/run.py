"""A search from its arguments to its answer: checks, chunks of queries, candidates, rescoring."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import METRICS, check_k, check_mask, check_metric
from gpuzip._core.device import is_capturing, is_gpu
from gpuzip._core.inputs import as_matrix
from gpuzip._core.progress import Progress, reporting
from gpuzip._core.rows import Matrix, PackedRows, Rows
from gpuzip.errors import GpuzipError
from gpuzip.ops._dispatch import at_once as by_ready_loops
from gpuzip.search.exact import FIRST, attempt, until_sure
from gpuzip.search.few import few
from gpuzip.search.first import may_be_plain, need_of, rehearsal
from gpuzip.search.memory import at_once, query_bytes, scan_bytes, wider_bytes, workspace
from gpuzip.search.packed import Searched
from gpuzip.search.rescore import Store, best_of_candidates, check_multiplier
from gpuzip.search.values import values_of

WHO = "Codes.search"

Report = Callable[[int], object]

_MORE = 4  # times as many candidates, if an upper bound leaves room for a better row


@dataclass(frozen=True)
class Plan:
    """Two stages: take `n_candidates` by `candidate_metric`, keep the best k by `metric` in the store.

    If the scores of candidates are upper bounds, more are taken, up to `most`, until no other row can be
    better. Without a store the candidates are the result.
    """

    searched: Searched
    k: int
    n_candidates: int
    most: int
    candidate_metric: str
    metric: str
    mask: Tensor | None
    store: Store | None

    @property
    def device(self) -> torch.device:
        return self.searched.packed.device


class Arguments(NamedTuple):
    """Those of `Codes.search`. store: what `rescore` names, or None."""

    queries: Matrix
    k: int
    metric: str
    mask: Tensor | np.ndarray[Any, Any] | None
    store: Store | None
    multiplier: float
    candidates: str | None
    progress: Progress

    @property
    def are_plain(self) -> bool:
        """Whether no store scores candidates again, and no progress is reported."""
        return self.store is None and self.candidates is None and not self.progress


def search(searched: Searched, given: Arguments) -> tuple[Tensor, Tensor]:
    """Implements `Codes.search`."""
    searched.codec.check_fitted(WHO)
    if not given.are_plain or not may_be_plain(searched, given.queries):
        return _search(searched, given)

    def again(codes: Searched, queries: Matrix) -> object:
        return _search(codes, given._replace(queries=queries))

    asked = searched, given.queries, given.metric
    return by_ready_loops(
        need_of(*asked), partial(_search, searched, given), lambda: rehearsal(*asked, given.k, again)
    )


def _search(searched: Searched, given: Arguments) -> tuple[Tensor, Tensor]:
    if given.mask is None and given.are_plain:
        found = few(searched, given.queries, given.k, given.metric)
        if found is not None:
            return found
    if given.candidates is not None and given.store is None:
        raise GpuzipError(
            f"{WHO}: candidates={given.candidates!r} must be given with rescore. Pass rescore=True or a "
            "store."
        )
    plan = _plan(searched, given)
    queries = as_matrix(WHO, "queries", given.queries)
    one = queries.ndim == 1
    asked = _asked(searched, queries[None] if one else queries, given.metric)
    with reporting(WHO, given.progress, "search", asked.n) as report:
        values, ids = _answers(plan, asked, report)
    return (values[0], ids[0]) if one else (values, ids)


def _plan(searched: Searched, given: Arguments) -> Plan:
    codec, packed = searched
    _, k, metric, mask, store, multiplier, candidates, _ = given
    N, device = len(packed), packed.device
    coarse = candidates in codec.coarse_kinds
    first = metric if coarse or candidates is None else candidates
    if candidates is not None and candidates not in (known := (*codec.metrics, *codec.coarse_kinds)):
        raise GpuzipError(
            f"{WHO}: candidates must be one of {', '.join(known)} for these codes; got {candidates!r}."
        )
    if store is not None and metric == "hamming":
        raise GpuzipError(
            f"{WHO}: metric must be one of {', '.join(METRICS)} with rescore, which scores floats; got "
            "'hamming'. For candidates by Hamming distance pass candidates='hamming'."
        )
    check_metric(WHO, metric, codec.metrics if store is None else METRICS)
    k = found = check_k(WHO, k, N)
    if store is not None:
        found = min(math.ceil(k * check_multiplier(WHO, multiplier)), N)
    allowed, most = None if mask is None else check_mask(WHO, mask, N, device), N
    if allowed is not None and not is_capturing(device):
        most = int(allowed.sum())
        k, found = min(k, most), min(found, most)
    bounds = coarse and codec.coarse_kinds[str(candidates)] and not is_capturing(device)
    scanned = codec.coarse(packed, str(candidates)) if coarse else searched
    return Plan(scanned, k, found, most if bounds else found, first, metric, allowed, store)


def _asked(searched: Searched, queries: Matrix, metric: str) -> Rows | PackedRows:
    codec, packed = searched
    if metric == "hamming" and str(getattr(queries, "dtype", "")).endswith("uint8"):
        return PackedRows(WHO, queries, codec.code_size, packed.device, "queries")
    return Rows(WHO, queries, codec.d, packed.device, "queries")


def _answers(plan: Plan, asked: Rows | PackedRows, report: Report) -> tuple[Tensor, Tensor]:
    """Values and ids; queries whose last candidate leaves room for a better row take more candidates."""
    device = plan.device
    if asked.n == 0 or plan.k == 0:
        ids = torch.empty((asked.n, plan.k), dtype=torch.int64, device=device)
        return values_of(torch.empty(ids.shape, device=device, dtype=torch.float32), plan.metric, False), ids
    if is_gpu(device):
        asked.check()
    found, bounds = plan.n_candidates, plan.most > plan.n_candidates
    left = torch.zeros(asked.n, dtype=torch.bool, device=device) if bounds else None
    scores, ids = _from_candidates(plan, asked, asked.n, found, left, report)
    while left is not None and found < plan.most and len(some := left.nonzero().view(-1)):
        found = min(_MORE * found, plan.most)
        scores[some], ids[some] = _from_candidates(plan, asked, some, found, left)
    absent = plan.mask is not None and is_capturing(device)  # else k is at most the allowed rows
    return values_of(scores, plan.metric, absent), ids


def _from_candidates(
    plan: Plan,
    asked: Rows | PackedRows,
    queries: int | Tensor,
    found: int,
    left: Tensor | None,
    report: Report = lambda done: None,
) -> tuple[Tensor, Tensor]:
    """Scores (Q, k) and ids (Q, k) of all queries, or of some by number, from `found` candidates each.

    left: (number of queries,) bool, filled with whether a row beyond the candidates may still be better.
    """

    def one_chunk(some: slice | Tensor, stage: int) -> tuple[Tensor, Tensor, Tensor | None]:
        block = asked.block(some.start, some.stop) if isinstance(some, slice) else asked.rows(some)
        block = block.to(plan.device)
        block = block if block.dtype == torch.uint8 else block.float()
        scores, ids, unsure, more = _of_block(plan, block, found, stage)
        if left is not None:
            left[some] = more()
        return scores, ids, unsure

    count = queries if isinstance(queries, int) else len(queries)
    return until_sure(one_chunk, queries, _steps(plan, count, found), report)


def _steps(plan: Plan, queries: int, found: int) -> tuple[int, int]:
    """How many queries fit in the workspace, in the first stage and in later ones.

    On a GPU only the scan counts, because each chunk decodes all codes again.
    """
    codec, packed = plan.searched
    size, room, own = (len(packed), found, codec.gather_cost), workspace(plan.device), codec.scorer_bytes
    if is_gpu(plan.device):
        first, later = (scan_bytes(*size, codec.score_bytes, wider) for wider in (False, True))
        first += own
    else:
        first, later = query_bytes(*size) + codec.first_scorer_bytes, wider_bytes(*size)
    return at_once(queries, room // first), max(1, room // (later + own))


def _of_block(
    plan: Plan, queries: Tensor, found: int, stage: int
) -> tuple[Tensor, Tensor, Tensor | None, Callable[[], Tensor]]:
    """Scores (Q, k), ids (Q, k), which queries are not proven, and a function: which need more candidates."""
    codec, packed = plan.searched
    scorer = codec.scorer(packed, queries, plan.candidate_metric, plan.mask)
    candidate_scores, ids, unsure = attempt(scorer, found, stage)
    if plan.mask is not None and is_capturing(plan.device):
        ids.masked_fill_(candidate_scores.isneginf(), -1)
    if plan.store is None:
        scores = candidate_scores
    else:
        store = plan.store if stage == FIRST else plan.store.checked()
        scores, ids, sound = best_of_candidates(store, queries, ids, plan.metric, plan.k)
        if sound is not None:  # the next stage checks each row and names the one at fault
            unsure = ~sound if unsure is None else unsure | ~sound
    return scores, ids, unsure, lambda: candidate_scores[:, -1] > scores[:, -1]
