"""A search of codes from its arguments to its answer: checks, chunks of queries, candidates, rescoring."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gpuzip.capture import is_capturing, is_gpu
from gpuzip.errors import GpuzipError
from gpuzip.rescoring import Store, best_of_candidates, check_multiplier
from gpuzip.rows import Matrix, PackedRows, Rows
from gpuzip.search import (
    FIRST,
    WIDER,
    at_once,
    attempt,
    check_k,
    check_mask,
    check_metric,
    query_bytes,
    scan_bytes,
    until_sure,
    wider_bytes,
    workspace,
)

if TYPE_CHECKING:
    from gpuzip.codes import Codes

WHO = "Codes.search"

_MORE = 4  # times as many candidates, where a bound leaves a doubt
_ABSENT = (1 << 31) - 1  # the distance of a place that no allowed row takes


@dataclass(frozen=True)
class Plan:
    """What is looked for: `found` rows by the metric `first`, of which k remain by `metric` in the store.

    Where the keys of `first` are bounds of the store's, up to `most` rows, until no other may be better.
    """

    codes: Codes
    k: int
    found: int
    most: int
    first: str
    metric: str
    mask: Tensor | None
    store: Store | None


def search(
    codes: Codes,
    queries: Matrix,
    k: int,
    metric: str,
    mask: Tensor | np.ndarray[Any, Any] | None,
    store: Store | None,
    rescore_multiplier: float,
    candidates: str | None,
) -> tuple[Tensor, Tensor]:
    """`Codes.search`, with the store that rescores, or None."""
    codes.codec.check_fitted(WHO)
    if candidates is not None and store is None:
        raise GpuzipError(f"{WHO}: candidates={candidates!r} came without rescore. Pass a store, or True.")
    plan = _plan(codes, k, metric, mask, store, rescore_multiplier, candidates)
    one = isinstance(queries, Tensor | np.ndarray) and queries.ndim == 1
    values, ids = _answers(codes, plan, _asked(codes, queries[None] if one else queries, metric))
    return (values[0], ids[0]) if one else (values, ids)


def _plan(
    codes: Codes,
    k: int,
    metric: str,
    mask: Tensor | np.ndarray[Any, Any] | None,
    store: Store | None,
    multiplier: float,
    candidates: str | None,
) -> Plan:
    codec = codes.codec
    coarse = candidates in codec.coarse_kinds
    first = metric if coarse or candidates is None else candidates
    check_metric(WHO, first, codec.metrics if candidates is None else (*codec.metrics, *codec.coarse_kinds))
    if store is not None:
        check_metric(WHO, metric)
    k = found = check_k(WHO, k, len(codes))
    if store is not None:
        found = min(math.ceil(k * check_multiplier(WHO, multiplier)), len(codes))
    allowed, most = None if mask is None else check_mask(WHO, mask, len(codes), codes.device), len(codes)
    if allowed is not None and not is_capturing(codes.device):
        most = int(allowed.sum())
        k, found = min(k, most), min(found, most)
    bounds = coarse and codec.coarse_kinds[str(candidates)] and not is_capturing(codes.device)
    scanned = codec.coarse(codes, str(candidates)) if coarse else codes
    return Plan(scanned, k, found, most if bounds else found, first, metric, allowed, store)


def _asked(codes: Codes, queries: Matrix, metric: str) -> Rows | PackedRows:
    if metric == "hamming" and str(getattr(queries, "dtype", "")).endswith("uint8"):
        return PackedRows(WHO, queries, codes.codec.code_size, codes.device, "queries")
    return Rows(WHO, queries, codes.codec.d, codes.device, "queries")


def _answers(codes: Codes, plan: Plan, asked: Rows | PackedRows) -> tuple[Tensor, Tensor]:
    """By more and more candidates, for queries where the last of them leaves room for a better row."""
    if asked.n == 0 or plan.k == 0:
        ids = torch.empty((asked.n, plan.k), dtype=torch.int64, device=codes.device)
        return _scores(torch.empty(ids.shape, device=codes.device), plan.metric, False), ids
    if is_gpu(codes.device):
        asked.check()
    found, bounds = plan.found, plan.most > plan.found
    left = torch.zeros(asked.n, dtype=torch.bool, device=codes.device) if bounds else None
    keys, ids = _found(plan, asked, asked.n, found, left)
    while left is not None and found < plan.most and len(some := left.nonzero().view(-1)):
        found = min(_MORE * found, plan.most)
        keys[some], ids[some] = _found(plan, asked, some, found, left)
    absent = plan.mask is not None and is_capturing(codes.device)  # else there are k rows for k places
    return _scores(keys, plan.metric, absent), ids


def _found(
    plan: Plan, asked: Rows | PackedRows, queries: int | Tensor, found: int, left: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Keys (Q, k) and ids (Q, k) of all queries, or of some by number, from so many candidates.

    left: of all queries, where it is noted whether the last candidate's key is above the last of these.
    """
    device = plan.codes.device

    def one_chunk(some: slice | Tensor, road: int) -> tuple[Tensor, Tensor, Tensor | None]:
        block = asked.block(some.start, some.stop) if isinstance(some, slice) else asked.rows(some)
        block = block.to(device)
        block = block if block.dtype == torch.uint8 else block.float()
        keys, ids, unsure, more = _of_block(plan, block, found, road)
        if left is not None:
            left[some] = more()
        return keys, ids, unsure

    return until_sure(
        one_chunk, queries, _steps(plan, queries if isinstance(queries, int) else len(queries), found)
    )


def _steps(plan: Plan, queries: int, found: int) -> tuple[int, int]:
    """Queries whose work fits in the workspace, at first and where more of their rows are looked at.

    On a GPU, where each chunk decodes all codes again, that is the work of their scan.
    """
    codes, codec, room = plan.codes, plan.codes.codec, workspace(plan.codes.device)
    size = len(codes), found, codec.gather_cost
    if is_gpu(codes.device):
        first, later = (scan_bytes(*size, codec.key_bytes, road) for road in (FIRST, WIDER))
    else:
        first, later = query_bytes(*size), wider_bytes(*size)
    own = codec.scorer_bytes
    return at_once(queries, room // (first + own)), max(1, room // (later + own))


def _of_block(
    plan: Plan, queries: Tensor, found: int, road: int
) -> tuple[Tensor, Tensor, Tensor | None, Callable[[], Tensor]]:
    """Keys and ids (Q, k), which are unsure, and what tells where more candidates may hold a better row."""
    codes = plan.codes
    firsts, ids, unsure = attempt(codes.codec.scorer(codes, queries, plan.first, plan.mask), found, road)
    if plan.mask is not None and is_capturing(codes.device):
        ids.masked_fill_(firsts.isneginf(), -1)
    if plan.store is None:
        keys = firsts
    else:
        store = plan.store if road == FIRST else plan.store.checked()
        keys, ids, sound = best_of_candidates(store, queries, ids, plan.metric, plan.k)
        if sound is not None:  # the next road reads the rows one by one and says which is not
            unsure = ~sound if unsure is None else unsure | ~sound
    return keys, ids, unsure, lambda: firsts[:, -1] > keys[:, -1]


def _scores(keys: Tensor, metric: str, absent: bool) -> Tensor:
    """What a caller sees of keys, the greater the better."""
    if metric == "l2":
        return keys.neg_().clamp_(min=0).add_(0.0)  # no -0.0
    if metric == "hamming":
        distances = keys.neg().clamp_(max=2**24).to(torch.int32)
        return distances.masked_fill_(keys.isneginf(), _ABSENT) if absent else distances
    return keys
