"""A search over shards: the answer of one search over the codes of all live rows, which are not copied."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.checks import SearchMetric, check_k, check_metric
from gpuzip._core.inputs import as_matrix
from gpuzip._core.planes import empty
from gpuzip._core.rows import Matrix, Rows
from gpuzip.codecs.codes import Codes
from gpuzip.dataset.ids import Array
from gpuzip.dataset.view import View
from gpuzip.errors import GpuzipError
from gpuzip.search.merge import best_of_two
from gpuzip.search.rescore import (
    ReadStore,
    ScorerStore,
    Store,
    best_of_candidates,
    check_multiplier,
    matrix_store,
)
from gpuzip.search.values import values_of

WHO = "Dataset.search"

#: Bytes of codes of a dataset, above which each shard is closed once it is searched.
KEPT_OPEN = 1 << 30

_CPU = torch.device("cpu")


def nearest(
    view: View,
    queries: Matrix,
    k: int,
    metric: SearchMetric,
    allowed: list[Array | None],
) -> tuple[Tensor, Tensor]:
    """Values (Q, k), and places (Q, k) among all live rows, of the k best rows; ties by place.

    allowed: per shard, (n,) bool over its rows, removed ones too; None where all may be found.
    """
    found: tuple[Tensor, Tensor] | None = None
    is_large = sum(shard.entry.codes.bytes for shard in view.shards) > KEPT_OPEN
    for number, (shard, mask) in enumerate(zip(view.shards, allowed, strict=True)):
        if mask is not None and not mask.any():
            continue
        some = None if mask is None else torch.from_numpy(mask)
        values, rows = shard.codes.search(queries, k, metric, some)
        part = values, torch.from_numpy(shard.places_of(rows.numpy())) + int(view.starts[number])
        found = part if found is None else best_of_two(found, part, k, metric)
        if is_large:
            shard.files.close()
    if found is None:
        return without_rows(view, queries, k, metric)
    return found


def without_rows(view: View, queries: Matrix, k: int, metric: SearchMetric) -> tuple[Tensor, Tensor]:
    """The answer where no row may be found: arguments are checked as ever."""
    codes = Codes(view.codec, empty(0, view.codec.plane_sizes, _CPU))
    values, places = codes.search(queries, k, metric)
    return values, places


def rescored(
    view: View,
    queries: Matrix,
    k: int,
    metric: SearchMetric,
    allowed: list[Array | None],
    store: Store,
    multiplier: float,
) -> tuple[Tensor, Tensor]:
    """`nearest` of k * multiplier candidates, which are scored anew by a store of all live rows."""
    check_metric(WHO, metric)
    k = check_k(WHO, k, max(1, len(view)))
    found = min(math.ceil(k * check_multiplier(WHO, multiplier)), max(1, len(view)))
    values, places = nearest(view, queries, found, metric, allowed)
    if places.numel() == 0:
        return values, places
    asked: Any = as_matrix(WHO, "queries", queries)
    rows = Rows(WHO, asked[None] if asked.ndim == 1 else asked, view.codec.d, _CPU, "queries")
    block = rows.block(0, rows.n).float()
    candidates = places[None] if asked.ndim == 1 else places
    scores, best, _ = best_of_candidates(store, block, candidates, metric, min(k, candidates.shape[1]))
    values = values_of(scores, metric, False)
    return (values[0], best[0]) if asked.ndim == 1 else (values, best)


def store_of(view: View, rescore: Any, read: Callable[[Tensor], Tensor] | None) -> Store:
    """The store of a caller's matrix or codes of all live rows, in order; or of rows that `read` reads."""
    n = len(view)
    if read is not None:
        return ReadStore(read, n, each_once=True)
    if not isinstance(rescore, Codes):
        return matrix_store(WHO, rescore, n, view.codec.d, _CPU)
    if rescore.shape != (n, view.codec.d) or rescore.device != _CPU:
        raise GpuzipError(
            f"{WHO}: rescore must be codes of {(n, view.codec.d)} on the CPU; got {rescore.shape} on "
            f"{rescore.device}. Pass codes of the same rows."
        )
    if not rescore.codec.scores_are_of_decoded_rows:
        return ScorerStore(lambda q, metric: rescore.codec.scorer(rescore.packed, q, metric), n, _CPU)
    return ReadStore(lambda places: rescore.rows(places).float(), n, each_once=True)
