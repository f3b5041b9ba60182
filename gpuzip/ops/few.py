"""Searches of few queries on a CPU that keep what is at hand of the codes, for sizes that have one."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from gpuzip.ops._dispatch import loops_of
from gpuzip.ops.one_pass import Array, Few, can_multiply


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
    if not can_multiply(rows, len(rows)):
        return None
    few: Few = loops_of("product_few").ProductFew(rows, *tables, minus_squares, reach, taken, *of_queries)
    return few


def float_few(rows: Tensor, metric: str, most: float) -> Few | None:
    """Prepare a search by the scores of `rescore` of all rows (N, D) float32. most: see `Few`."""
    if not can_multiply(rows, len(rows)):
        return None
    few: Few = loops_of("float_few").FloatFew(rows, metric, most)
    return few


class Cheaper:
    """The search of two that takes less time, if it can search, else the other.

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
