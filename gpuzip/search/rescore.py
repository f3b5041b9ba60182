"""The last word on a search's candidates: their rows, and no others, are read from a better store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.device import is_capturing, is_gpu
from gpuzip._core.rows import LARGEST_NORM, Matrix, Rows
from gpuzip.errors import GpuzipError
from gpuzip.ops import rescore, topk
from gpuzip.search.memory import workspace
from gpuzip.search.scorer import Scorer

if TYPE_CHECKING:
    from typing_extensions import Self


class Store(Protocol):
    """Rows that candidates are scored by."""

    def scores(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        """(Q, D) float32, (Q, R) int64 -> (Q, R) float32, the greater the better; -inf for ids outside."""

    def sound(self, ids: Tensor) -> Tensor | None:
        """Whether the rows of ids are fit to score by: (Q,) bool; None where `scores` sees to it."""

    def checked(self) -> Store:
        """A store of the same rows whose `scores` raises for those that are not fit."""


class _ChecksScores:
    """What stores share whose rows need no check, or whose `scores` checks them."""

    def sound(self, ids: Tensor) -> Tensor | None:
        return None

    def checked(self) -> Self:
        return self


class InPlaceStore:
    """Rows of a tensor on the device of the codes: nothing waits to learn which there are.

    checked: the store that reads them one by one; None where a CUDA graph is recorded, which checks nothing.
    """

    def __init__(self, x: Tensor, checked: Store | None) -> None:
        self._x, self._checked = x, checked

    def scores(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        return rescore(queries, self._x, ids, metric)

    def sound(self, ids: Tensor) -> Tensor | None:
        """By squared norms, which are NaN or too large where a row is not fit: its distance from 0."""
        if self._checked is None:
            return None
        squares = rescore(
            self._x.new_zeros((len(ids), self._x.shape[1]), dtype=torch.float32), self._x, ids, "l2"
        )
        return (squares > -(LARGEST_NORM**2)).all(1)

    def checked(self) -> Store:
        return self._checked or self


class ReadStore(_ChecksScores):
    """Rows that are read by id: of a matrix or map, or codes that are decoded.

    read: ids, ascending where each is read once -> (n, D) float rows on the device of the queries.
    each_once: whether a row is read once for some queries, which waits for a GPU to learn which there are.
    """

    def __init__(self, read: Callable[[Tensor], Tensor], n: int, each_once: bool) -> None:
        self._read, self._n, self._each_once = read, n, each_once

    def scores(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        parts = [
            self._scores(queries[some], ids[some], metric) for some in _some_queries(ids, queries.shape[1])
        ]
        scores = parts[0] if len(parts) == 1 else torch.cat(parts)
        return scores.masked_fill_((ids < 0) | (ids >= self._n), float("-inf"))

    def _scores(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        ids = ids.clamp(0, self._n - 1)
        if self._each_once:
            known, place = ids.unique(return_inverse=True)
        else:
            known, place = ids.view(-1), torch.arange(ids.numel(), device=ids.device).view(ids.shape)
        return rescore(queries, self._read(known), place, metric)


class ScorerStore(_ChecksScores):
    """Rows of codes whose scores are no decoded rows': the scores that their codec gathers.

    scorer: (Q, D) float32 queries on `device`, where the codes are, and a metric -> their scorer.
    """

    def __init__(self, scorer: Callable[[Tensor, str], Scorer], n: int, device: torch.device) -> None:
        self._scorer, self._n, self._device = scorer, n, device

    def scores(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        scorer = self._scorer(queries.to(self._device), metric)
        scores = scorer.gather(ids.clamp(0, self._n - 1).to(self._device)).to(ids.device)
        return scores.masked_fill_((ids < 0) | (ids >= self._n), float("-inf"))


def _some_queries(ids: Tensor, D: int) -> Iterator[slice]:
    """Queries whose candidates take at most the workspace as float32."""
    step = max(1, workspace(ids.device) // max(1, 4 * D * ids.shape[1]))
    for start in range(0, max(1, len(ids)), step):
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
    read = ReadStore(lambda ids: rows.rows(ids).to(device), n, each_once=True)
    if isinstance(x, Tensor) and is_capturing(device):
        return InPlaceStore(x.detach(), None)
    if isinstance(x, Tensor) and is_gpu(device) and x.dtype != torch.float64 and x.stride(1) == 1:
        return InPlaceStore(x.detach(), read)
    return read


def best_of_candidates(
    store: Store, queries: Tensor, ids: Tensor, metric: str, k: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The k best of every query's candidates: scores (Q, k), ids (Q, k); the lowest id first among equals.

    Last whether the rows of the candidates were fit to score by, (Q,) bool; None where all were.
    """
    ids = ids.sort(1).values  # so that position breaks ties as id does
    scores, at = topk(store.scores(queries, ids, metric), k)
    return scores, ids.gather(1, at), store.sound(ids)


def check_multiplier(who: str, value: Any) -> float:
    if (
        not isinstance(value, int | float | np.number)
        or isinstance(value, bool)
        or not 1 <= value < float("inf")
    ):
        raise GpuzipError(f"{who}: rescore_multiplier is {value!r}, a number of at least 1 is needed.")
    return float(value)
