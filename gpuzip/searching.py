"""A search of codes from its arguments to its answer: checks, chunks of queries, candidates, rescoring."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gpuzip.capture import is_capturing
from gpuzip.errors import GpuzipError
from gpuzip.rescoring import Store, best_of_candidates, check_multiplier
from gpuzip.rows import Matrix, PackedRows, Rows
from gpuzip.search import WORKSPACE, best, check_k, check_mask, check_metric, query_bytes

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
    """Chunk by chunk of the queries, each within the workspace."""
    keys = torch.empty((asked.n, plan.k), device=codes.device)
    ids = torch.empty((asked.n, plan.k), dtype=torch.int64, device=codes.device)
    step = _at_once(codes, plan.found)
    for start in range(0, asked.n if plan.k else 0, step):
        block = asked.block(start, start + step).to(codes.device)
        block = block if block.dtype == torch.uint8 else block.float()
        keys[start : start + step], ids[start : start + step] = _of_block(codes, plan, block)
    absent = plan.mask is not None and is_capturing(codes.device)  # else there are k rows for k places
    return _scores(keys, plan.metric, absent), ids


def _at_once(codes: Codes, found: int) -> int:
    """Queries whose work fits in the workspace."""
    one = query_bytes(len(codes), found, codes.codec.gather_cost) + codes.codec.scorer_bytes
    return max(1, WORKSPACE // one)


def _of_block(codes: Codes, plan: Plan, queries: Tensor) -> tuple[Tensor, Tensor]:
    """By more and more candidates, for queries where the last of them leaves room for a better row."""
    keys, ids, left = _found(plan, queries, plan.found)
    unsure, found = left.nonzero().view(-1) if plan.most > plan.found else left[:0], plan.found
    while len(unsure) and found < plan.most:
        found = min(_MORE * found, plan.most)
        for some in unsure.split(_at_once(codes, found)):
            keys[some], ids[some], left[some] = _found(plan, queries[some], found)
        unsure = unsure[left[unsure]]
    return keys, ids


def _found(plan: Plan, queries: Tensor, found: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys (Q, k), ids (Q, k), and whether the last candidate's key is above the last of these: (Q,) bool."""
    codes = plan.codes
    firsts, ids = best(codes.codec.scorer(codes, queries, plan.first, plan.mask), found)
    if plan.mask is not None and is_capturing(codes.device):
        ids.masked_fill_(firsts.isneginf(), -1)
    if plan.store is None:
        keys = firsts
    else:
        keys, ids = best_of_candidates(plan.store, queries, ids, plan.metric, plan.k)
    return keys, ids, firsts[:, -1] > keys[:, -1]


def _scores(keys: Tensor, metric: str, absent: bool) -> Tensor:
    """What a caller sees of keys, the greater the better."""
    if metric == "l2":
        return keys.neg_().clamp_(min=0).add_(0.0)  # no -0.0
    if metric == "hamming":
        distances = keys.neg().clamp_(max=2**24).to(torch.int32)
        return distances.masked_fill_(keys.isneginf(), _ABSENT) if absent else distances
    return keys
