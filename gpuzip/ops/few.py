"""Searches of few queries on a CPU, which keep what they need of the codes between calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gpuzip.ops import _here
from gpuzip.ops._dispatch import loops_of

Array = np.ndarray[Any, Any]
Found = tuple[Tensor, Tensor] | None


class Few(Protocol):
    """A search of few queries that keeps everything but the queries."""

    def can_search(self, Q: int, k: int) -> bool:
        """Return whether it is the fastest for Q queries and k rows of each."""

    def at_address(self, queries: int, Q: int, k: int, are_distances: bool, values: int, rows: int) -> bool:
        """Search Q queries at one address, and write values and rows, (Q, k) each, to two others.

        Arrays are passed as addresses, which numba takes sooner. queries: float32, or uint8 where codes are
        compared by "hamming". values: float32 scores, or int32 distances by "hamming". rows: int64.
        are_distances: scores by "l2" become distances. Returns False where `search.run` must search: where
        squares of the queries add up to `most` or more, or to NaN, or other rows may be better.
        """


def searched(
    few: Few,
    queries: Tensor,
    Q: int,
    k: int,
    are_distances: bool = False,
    shape: tuple[int, ...] | None = None,
) -> Found:
    """Search queries, Q rows that lie next to each other, and return values and rows, or None.

    shape: of what is returned, if not (Q, k).
    """
    shape = shape or (Q, k)
    values = torch.from_numpy(np.empty(shape, np.int32 if queries.dtype is torch.uint8 else np.float32))
    rows = torch.from_numpy(np.empty(shape, np.int64))  # numpy's memory is had in a quarter of the time
    at = values.data_ptr(), rows.data_ptr()
    return (values, rows) if few.at_address(queries.data_ptr(), Q, k, are_distances, *at) else None


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


def grid_few(
    planes: Sequence[Tensor],
    asked: tuple[Tensor, str, float],
    of_rows: tuple[Tensor, Tensor | None, Tensor],
    facts: Array,
    tiles: Tensor | None,
    most: float,
) -> Few:
    """Prepare `grid_best` for few queries, in one call for all of it, where `grid_pays`.

    planes, asked, of_rows, most: see `rabitq_few`. tiles: of `grid_tiles`, or None. facts: of `facts_of`.
    """
    few: Few = loops_of("grid_few").GridFew(planes, *asked, *of_rows, facts, tiles, most)
    return few


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


def float_few(
    rows: Tensor,
    metric: str,
    of_rows: tuple[Tensor | None, Tensor | None],
    reach: float,
    taken: Callable[[int, int], int],
    most: float,
) -> Few | None:
    """Prepare a search by products with float rows (N, D), whose best are scored by `rescore`.

    of_rows: scale (N,) by "cosine" and minus squares (N,) by "l2", else None. reach, taken: see
    `product_few`. most: see `Few`.
    """
    if not _here.may_search(rows, len(rows), 1):
        return None
    few: Few = loops_of("float_few").FloatFew(rows, metric, *of_rows, reach, taken, most)
    return few


def sums_few(
    rows: Tensor,
    codes: tuple[Tensor, Tensor, Tensor],
    of_rows: tuple[Tensor | None, Tensor | None],
    reach: float,
    taken: Callable[[int, int], int],
    of_queries: tuple[bool, float],
) -> Few | None:
    """Prepare a search by products with float rows that are kept, whose best are scored as sums of codewords.

    rows: (N, P*S) float32, decoded. codes: (N, P*M) uint8, codebooks (P, M, 256, S), and the norms of
    codewords, (P, M*256) float64. of_rows: scale (N,) by "cosine" and minus squares (N,) by "l2", else None.
    reach: the largest sum of norms of a row's codewords, times its scale. taken, of_queries: see
    `product_few`.
    """
    if codes[1].shape[2] != 256 or not _here.may_search(rows, len(rows), 1):
        return None
    few: Few = loops_of("sums_few").SumsFew(rows, *codes, *of_rows, reach, taken, *of_queries)
    return few


Choice = Callable[[int, int], Few | None]  # of Q queries and k rows of each, the search that is the fastest


def only(few: Few) -> Choice:
    """Choose this search, where it can search."""
    return lambda Q, k: few if few.can_search(Q, k) else None


def unless(few: Few, other_pays: Callable[[int], bool]) -> Choice:
    """Choose this search, where it can search, unless another that is none of few queries takes less.

    other_pays: of a number of queries, whether it does.
    """
    return lambda Q, k: None if other_pays(Q) or not few.can_search(Q, k) else few


def cheaper(first: Few, second: Few, second_pays: Callable[[int], bool]) -> Choice:
    """Choose the cheaper one of two searches, or the other one where it cannot search.

    second_pays: of a number of queries, whether the second takes less.
    """

    def chosen(Q: int, k: int) -> Few | None:
        in_turn = (second, first) if second_pays(Q) else (first, second)
        return next((few for few in in_turn if few.can_search(Q, k)), None)

    return chosen
