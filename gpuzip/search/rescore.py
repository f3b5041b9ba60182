"""Rescoring: the candidates of a search are scored anew by their rows in a more precise store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.device import is_capturing, is_gpu
from gpuzip._core.rows import LARGEST_NORM, Matrix, Rows
from gpuzip.errors import GpuzipError
from gpuzip.ops import rescore, topk
from gpuzip.search.memory import chunks, workspace
from gpuzip.search.scorer import Scorer

if TYPE_CHECKING:
    from typing_extensions import Self


class Store(Protocol):
    """A source of rows to score candidates by."""

    def scores(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        """(Q, D) float32, (Q, R) int64 -> (Q, R) float32, greater is better; -inf for ids out of range."""

    def sound(self, ids: Tensor) -> Tensor | None:
        """Whether the rows of ids are finite and not too large: (Q,) bool; None if `scores` checks them."""

    def checked(self) -> Store:
        """A store of the same rows whose `scores` raises for rows that are not sound."""


class _ChecksScores:
    """Mixin for stores whose rows need no check, or whose `scores` checks them."""

    def sound(self, ids: Tensor) -> Tensor | None:
        return None

    def checked(self) -> Self:
        return self


class InPlaceStore:
    """Rows of a tensor on the device of the codes, read in place without waiting for a GPU.

    checked: the store that checks rows as it reads them; None while a CUDA graph is captured, which checks
    nothing.
    """

    def __init__(self, x: Tensor, checked: Store | None) -> None:
        self._x, self._checked = x, checked

    def scores(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        return rescore(queries, self._x, ids, metric)

    def sound(self, ids: Tensor) -> Tensor | None:
        """Checks squared norms, as distances from 0: they are NaN or too large if a row is not sound."""
        if self._checked is None:
            return None
        squares = rescore(
            self._x.new_zeros((len(ids), self._x.shape[1]), dtype=torch.float32), self._x, ids, "l2"
        )
        return (squares > -(LARGEST_NORM**2)).all(1)

    def checked(self) -> Store:
        return self._checked or self


class ReadStore(_ChecksScores):
    """Rows that are read by id from a matrix or memory map, or decoded from codes.

    read: takes ids, ascending if each_once, and returns (n, D) float rows on the device of the queries.
    each_once: read each distinct row once, which waits for a GPU to find the distinct ids.
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
    """Rows of codes whose scores are not those of decoded rows: their codec's scorer gives the scores.

    scorer: takes (Q, D) float32 queries on `device`, where the codes are, and a metric; returns a scorer.
    """

    def __init__(self, scorer: Callable[[Tensor, str], Scorer], n: int, device: torch.device) -> None:
        self._scorer, self._n, self._device = scorer, n, device

    def scores(self, queries: Tensor, ids: Tensor, metric: str) -> Tensor:
        scorer = self._scorer(queries.to(self._device), metric)
        scores = scorer.gather(ids.clamp(0, self._n - 1).to(self._device)).to(ids.device)
        return scores.masked_fill_((ids < 0) | (ids >= self._n), float("-inf"))


def _some_queries(ids: Tensor, D: int) -> list[slice]:
    """Slices of queries whose candidate rows, as float32, fit in the workspace."""
    return chunks(len(ids), max(1, workspace(ids.device) // max(1, 4 * D * ids.shape[1])))


def matrix_store(who: str, x: Matrix, n: int, d: int, device: torch.device) -> Store:
    """The store of a float matrix that holds the source rows of the codes.

    Raises GpuzipError for another shape, dtype or device. Rows with NaN or inf raise when they are read.
    """
    rows = Rows(who, x, d, device, "rescore")
    if rows.n != n:
        raise GpuzipError(
            f"{who}: rescore must have {n} rows, one per code; got {rows.n}. Pass the rows of these codes."
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
    """The k best candidates per query: scores (Q, k), ids (Q, k); among equals the lowest id comes first.

    The third result is the store's `sound` for the candidates: (Q,) bool, or None.
    """
    ids = ids.sort(1).values  # so that position breaks ties as id does
    scores = store.scores(queries, ids, metric)
    scores = scores.masked_fill_(~scores.isfinite(), float("-inf"))  # rows that are damaged
    scores, at = topk(scores, k)
    return scores, ids.gather(1, at), store.sound(ids)


def check_multiplier(who: str, value: Any) -> float:
    if (
        not isinstance(value, int | float | np.number)
        or isinstance(value, bool)
        or not 1 <= value < float("inf")
    ):
        raise GpuzipError(f"{who}: rescore_multiplier must be a number of at least 1; got {value!r}.")
    return float(value)
