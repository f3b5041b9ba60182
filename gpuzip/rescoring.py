"""The last word on a search's candidates: their rows, and no others, are read from a better store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gpuzip.capture import is_capturing
from gpuzip.errors import GpuzipError
from gpuzip.ops import rescore, topk
from gpuzip.rows import Matrix, Rows
from gpuzip.search import WORKSPACE, Scorer


class Store(Protocol):
    """Rows that candidates are scored by."""

    def keys(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        """(Q, D) float32, (Q, R) int64 -> (Q, R) float32, the greater the better; -inf for ids outside."""


class InPlaceStore:
    """Rows of a tensor, unchecked: what a CUDA graph can record, which must not ask which rows there are."""

    def __init__(self, x: Tensor) -> None:
        self._x = x

    def keys(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        return rescore(queries, self._x, ids, metric)


class ReadStore:
    """Rows that are read by id: of a matrix or map, or codes that are decoded. Each once for some queries.

    read: ascending ids -> (n, D) float rows on the device of the queries.
    """

    def __init__(self, read: Callable[[Tensor], Tensor], n: int) -> None:
        self._read, self._n = read, n

    def keys(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        keys = torch.empty(ids.shape, device=ids.device)
        for some in _some_queries(ids, queries.shape[1]):
            known, place = ids[some].clamp(0, self._n - 1).unique(return_inverse=True)
            keys[some] = rescore(queries[some], self._read(known), place, metric)
        return keys.masked_fill_((ids < 0) | (ids >= self._n), float("-inf"))


class ScorerStore:
    """Rows of codes whose scores are no decoded rows': the keys that their codec gathers.

    scorer: (Q, D) float32 queries on `device`, where the codes are, and a metric -> their scorer.
    """

    def __init__(self, scorer: Callable[[Tensor, str], Scorer], n: int, device: torch.device) -> None:
        self._scorer, self._n, self._device = scorer, n, device

    def keys(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        scorer = self._scorer(queries.to(self._device), metric)
        keys = scorer.gather(ids.clamp(0, self._n - 1).to(self._device)).to(ids.device)
        return keys.masked_fill_((ids < 0) | (ids >= self._n), float("-inf"))


def _some_queries(ids: Tensor, D: int) -> Iterator[slice]:
    """Queries whose candidates take at most WORKSPACE as float32."""
    step = max(1, WORKSPACE // max(1, 4 * D * ids.shape[1]))
    for start in range(0, len(ids), step):
        yield slice(start, start + step)


def matrix_store(who: str, x: Matrix, n: int, d: int, device: torch.device) -> Store:
    """The store of a float matrix, whose rows are those that the codes were made of.

    Raises GpuzipError for another shape, dtype or device; NaN and inf are refused in rows that are read.
    """
    rows = Rows(who, x, d, device, "rescore")
    if rows.n != n:
        raise GpuzipError(
            f"{who}: rescore has {rows.n} rows, there are {n} codes. Pass the rows of these codes."
        )
    if isinstance(x, Tensor) and is_capturing(device):
        return InPlaceStore(x.detach())
    return ReadStore(lambda ids: rows.rows(ids).to(device), n)


def best_of_candidates(
    store: Store, queries: Tensor, ids: Tensor, metric: str, k: int
) -> tuple[Tensor, Tensor]:
    """The k best of every query's candidates: keys (Q, k), ids (Q, k); the lowest id first among equals."""
    ids = ids.sort(1).values  # so that position breaks ties as id does
    keys, at = topk(store.keys(queries, ids, metric), k)
    return keys, ids.gather(1, at)


def check_multiplier(who: str, value: Any) -> float:
    if (
        not isinstance(value, int | float | np.number)
        or isinstance(value, bool)
        or not 1 <= value < float("inf")
    ):
        raise GpuzipError(f"{who}: rescore_multiplier is {value!r}, a number of at least 1 is needed.")
    return float(value)
