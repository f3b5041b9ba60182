"""All rows within a radius, by searches for more and more rows until one lies outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import SearchMetric
from gpuzip._core.inputs import as_matrix
from gpuzip._core.rows import Matrix
from gpuzip.dataset.ids import Array
from gpuzip.dataset.searching import WHO, without_rows
from gpuzip.dataset.shards import Shard
from gpuzip.dataset.view import View
from gpuzip.errors import GpuzipError
from gpuzip.search.merge import DISTANCES

_FIRST, _MORE = 64, 4  # rows per query at first, and how many times as many then
_AT_ONCE = 1 << 22  # values of one search


def check_radius(radius: Any) -> float:
    if isinstance(radius, bool) or not isinstance(radius, int | float | np.number) or radius != radius:
        raise GpuzipError(f"{WHO}: radius must be a number; got {radius!r}.")
    return float(radius)


def within(
    view: View, queries: Matrix, radius: float, metric: SearchMetric, allowed: list[Array | None]
) -> tuple[Tensor, Tensor, Tensor]:
    """lims (Q + 1,), values and places of the rows nearer than a radius, each query's best first.

    allowed: as `searching.nearest` takes it. As in FAISS, a row at the radius itself is not among them.
    """
    asked: Any = as_matrix(WHO, "queries", queries)
    asked = asked[None] if asked.ndim == 1 else asked
    values, places = without_rows(view, asked, 1, metric)  # checks the arguments
    parts = [(torch.empty(0, dtype=torch.int64, device="cpu"), values.view(-1), places.view(-1))]
    for shard, mask, start in zip(view.shards, allowed, view.starts.tolist(), strict=False):
        if mask is None or mask.any():
            for query, found, rows in _within_shard(shard, asked, radius, metric, mask):
                parts.append((query, found, torch.from_numpy(shard.places_of(rows.numpy())) + start))
    query, values, places = (torch.cat(of) for of in zip(*parts, strict=True))
    key = values.numpy() if metric in DISTANCES else -values.numpy()
    order = torch.from_numpy(np.lexsort((places.numpy(), key, query.numpy())))
    counts = torch.bincount(query, minlength=len(asked))
    lims = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    return lims, values[order], places[order]


def _within_shard(
    shard: Shard, asked: Any, radius: float, metric: SearchMetric, mask: Array | None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Numbers of queries, values and rows of the shard, for the rows that lie within."""
    most = shard.entry.n if mask is None else int(mask.sum())
    allowed = None if mask is None else torch.from_numpy(mask)
    left, k = torch.arange(len(asked), device="cpu"), min(_FIRST, most)
    while len(left):
        more = []
        for some in left.split(max(1, _AT_ONCE // k)):
            queries = asked[some if isinstance(asked, Tensor) else some.numpy()]
            values, rows = shard.codes.search(queries, k, metric, allowed)
            inside = values < radius if metric in DISTANCES else values > radius
            is_done = ~inside[:, -1] if k < most else torch.ones_like(inside[:, -1])
            inside &= is_done[:, None]
            at, place = inside.nonzero(as_tuple=True)
            yield some[at], values[at, place], rows[at, place]
            more.append(some[~is_done])
        left, k = torch.cat(more), min(_MORE * k, most)
