"""Searches of few queries on a CPU, which keep what they need of the codes between calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from gpuzip.ops import _here
from gpuzip.ops._dispatch import loops_of

Array = np.ndarray[Any, Any]


class Few(Protocol):
    """A search of few queries that keeps everything but the queries."""

    def can_search(self, Q: int, k: int) -> bool:
        """Return whether it is the fastest for Q queries and k rows of each."""

    def __call__(
        self, queries: Array, Q: int, k: int, are_distances: bool = False
    ) -> tuple[Array, Array] | None:
        """Return scores (Q * k,) float32 and rows (Q * k,) int64 of queries, an array of all their values.

        are_distances: scores by "l2" become distances, and those by "hamming" int32. None: squares of the
        queries add up to `most` or more, or to NaN. One that also has `at_address` takes the address of
        the values instead, which is sooner known, and returns (Q, k) arrays.
        """


def adc_few(
    codes: Tensor,
    columns: Tensor,
    is_l2: bool,
    scale: Tensor | None,
    turned: Tensor | None = None,
    normalize: bool = False,
    most: float = math.inf,
) -> Few | None:
    """Prepare `adc_topk` by the tables of `lookup_tables` for few queries, in one call for all of it.

    codes (N, B) uint8, columns (S, M, K), scale (N,) float32 or None, turned: what `turned` returned for the
    codes. normalize: divide queries by their norms. most: see `Few`.
    """
    (N, _), (_, M, K) = codes.shape, columns.shape
    if K not in (16, 256) or (K == 16 and M % 2) or not _here.may_search(codes, N, 1) or codes.stride(1) != 1:
        return None
    loops = _here.loops_of_registers("adc_few")
    if loops is None:
        return None
    by_nibble = K == 16 and turned is not None
    kind = loops_of("nibble_few").NibbleFew if by_nibble else loops.AdcFew
    found: Few = kind(codes, columns, is_l2, scale, turned, normalize, most)
    return found


def rabitq_few(
    planes: Sequence[Tensor],
    asked: tuple[Tensor, str, float],
    of_rows: tuple[Tensor, Tensor | None, Tensor],
    turned: Tensor | None,
    most: float,
) -> Few | None:
    """Prepare `adc_topk` by the tables of `sign_tables` for few queries, in one call for all of it.

    planes: of the bits. asked: center, metric and reach of `rabitq_query.coefficients`. of_rows: scale (N,),
    mask (N,) or None, extra (N, E). turned: what `turned` returned for the planes. most: see `Few`.
    """
    if not _here.may_search(planes[0], len(planes[0]), 1) or any(plane.stride(1) != 1 for plane in planes):
        return None
    loops = _here.loops_of_registers("rabitq_few")
    return None if loops is None else loops.RaBitQFew(planes, *asked, *of_rows, turned, most)


def hamming_few(codes: Tensor, turned: Tensor | None) -> Few | None:
    """Prepare `hamming_topk` for few queries, in one call for all of it.

    codes: (N, B) uint8. turned: what `turned` returned for them.
    """
    loops = _here.loops_of_registers("hamming_few") if _here.may_search(codes, len(codes), 1) else None
    return None if loops is None or turned is None else loops.HammingFew(codes, turned)


def scalar_few(
    codes: Tensor,
    values: tuple[Tensor, Tensor, Tensor],
    metric: str,
    facts: Sequence[float],
    of_rows: tuple[Tensor | None, Tensor | None],
    taken: Callable[[int, int], int],
    most: float,
) -> Few | None:
    """Prepare `scalar_best` for few queries, in one call for all of it.

    codes (N, D) uint8, not flipped. values: of code 0 and per step, (D,) float32, and of code 128, (D,)
    float64. facts: see `ScalarScorer`. of_rows: scale and bias (N,) or None. taken: of k and N, how many rows
    are taken. most: see `Few`.
    """
    if not _here.may_search(codes, len(codes), 1) or not codes.is_contiguous():
        return None
    few: Few = loops_of("scalar_few").ScalarFew(codes, *values, metric, facts, *of_rows, taken, most)
    return few


def product_few(
    rows: Tensor,
    tables: tuple[Tensor, Tensor, Tensor | None],
    minus_squares: Tensor | None,
    reach: float,
    taken: Callable[[int, int], int],
    of_queries: tuple[bool, float],
) -> Few | None:
    """Prepare a search by products with float rows that are kept, whose best are scored by `table_sums`.

    rows: (N, D) float32, decoded. tables: codes (N, B) uint8, centroids (M, K, S) and scale (N,) or None.
    minus_squares: (N,) of the rows by "l2", else None. reach: the largest norm of rows, times scale. taken:
    of k and N, how many candidates. of_queries: whether they are divided by their norms, and `most` of `Few`.
    """
    if not _here.may_search(rows, len(rows), 1):
        return None
    few: Few = loops_of("product_few").ProductFew(rows, *tables, minus_squares, reach, taken, *of_queries)
    return few


def float_few(rows: Tensor, metric: str, most: float) -> Few | None:
    """Prepare a search by the scores of `rescore` of all rows (N, D) float32. most: see `Few`."""
    if not _here.may_search(rows, len(rows), 1):
        return None
    few: Few = loops_of("float_few").FloatFew(rows, metric, most)
    return few


class Cheaper:
    """Two searches, of which the cheaper one is called, or the other one where it cannot search.

    second_pays: of a number of queries, whether the second takes less.
    """

    def __init__(self, first: Few, second: Few, second_pays: Callable[[int], bool]) -> None:
        self._first, self._second, self._second_pays = first, second, second_pays

    def _of(self, Q: int, k: int) -> Few:
        one, other = (self._second, self._first) if self._second_pays(Q) else (self._first, self._second)
        return one if one.can_search(Q, k) else other

    def can_search(self, Q: int, k: int) -> bool:
        return self._of(Q, k).can_search(Q, k)

    def __call__(
        self, queries: Array, Q: int, k: int, are_distances: bool = False
    ) -> tuple[Array, Array] | None:
        return self._of(Q, k)(queries, Q, k, are_distances)
