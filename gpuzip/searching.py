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

_ABSENT = (1 << 31) - 1  # the distance of a place that no allowed row takes


@dataclass(frozen=True)
class Plan:
    """What is looked for: `found` rows by the metric `first`, of which k remain by `metric` in the store."""

    k: int
    found: int
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
    first = candidates or metric
    check_metric(WHO, first, codes.codec.metrics)
    if store is not None:
        check_metric(WHO, metric)
    plan = _plan(codes, k, first, metric, mask, store, rescore_multiplier)
    one = isinstance(queries, Tensor | np.ndarray) and queries.ndim == 1
    values, ids = _answers(codes, plan, _asked(codes, queries[None] if one else queries, metric))
    return (values[0], ids[0]) if one else (values, ids)


def _plan(
    codes: Codes,
    k: int,
    first: str,
    metric: str,
    mask: Tensor | np.ndarray[Any, Any] | None,
    store: Store | None,
    multiplier: float,
) -> Plan:
    k = found = check_k(WHO, k, len(codes))
    if store is not None:
        found = min(math.ceil(k * check_multiplier(WHO, multiplier)), len(codes))
    allowed = None if mask is None else check_mask(WHO, mask, len(codes), codes.device)
    if allowed is not None and not is_capturing(codes.device):
        most = int(allowed.sum())
        k, found = min(k, most), min(found, most)
    return Plan(k, found, first, metric, allowed, store)


def _asked(codes: Codes, queries: Matrix, metric: str) -> Rows | PackedRows:
    if metric == "hamming" and str(getattr(queries, "dtype", "")).endswith("uint8"):
        return PackedRows(WHO, queries, codes.codec.code_size, codes.device, "queries")
    return Rows(WHO, queries, codes.codec.d, codes.device, "queries")


def _answers(codes: Codes, plan: Plan, asked: Rows | PackedRows) -> tuple[Tensor, Tensor]:
    """Chunk by chunk of the queries, each within the workspace."""
    keys = torch.empty((asked.n, plan.k), device=codes.device)
    ids = torch.empty((asked.n, plan.k), dtype=torch.int64, device=codes.device)
    one = query_bytes(len(codes), plan.found, codes.codec.gather_cost) + codes.codec.scorer_bytes
    step = max(1, WORKSPACE // one)
    for start in range(0, asked.n if plan.k else 0, step):
        block = asked.block(start, start + step).to(codes.device)
        block = block if block.dtype == torch.uint8 else block.float()
        keys[start : start + step], ids[start : start + step] = _of_block(codes, plan, block)
    absent = plan.mask is not None and is_capturing(codes.device)  # else there are k rows for k places
    return _scores(keys, plan.metric, absent), ids


def _of_block(codes: Codes, plan: Plan, queries: Tensor) -> tuple[Tensor, Tensor]:
    keys, ids = best(codes.codec.scorer(codes, queries, plan.first, plan.mask), plan.found)
    if plan.mask is not None and is_capturing(codes.device):
        ids.masked_fill_(keys.isneginf(), -1)
    if plan.store is None:
        return keys, ids
    return best_of_candidates(plan.store, queries, ids, plan.metric, plan.k)


def _scores(keys: Tensor, metric: str, absent: bool) -> Tensor:
    """What a caller sees of keys, the greater the better."""
    if metric == "l2":
        return keys.neg_().clamp_(min=0).add_(0.0)  # no -0.0
    if metric == "hamming":
        distances = keys.neg().clamp_(max=2**24).to(torch.int32)
        return distances.masked_fill_(keys.isneginf(), _ABSENT) if absent else distances
    return keys
