"""Exact scores of candidates on CPUs, and the best of them, for codes that have a loop for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from gpuzip.ops import _here
from gpuzip.ops._dispatch import loops_of
from gpuzip.ops.adc import RowTerms

Tables = tuple[Tensor, Tensor, Tensor, bool, Tensor | None, Tensor | None]


def sign_sums(
    planes: Sequence[Tensor], tables: Tensor, terms: RowTerms, shift: Tensor, ids: Tensor
) -> Tensor:
    """Score rows ids (Q, R) of `sign_rows` as `adc_topk` does by the tables of `sign_tables`, for loops.

    tables: (Q, 2W, 16), those of one plane.
    """
    scale, mask, extra, coef = terms
    scores: Tensor = loops_of("sign_rows").sign_sums(planes, tables, scale, extra, coef, shift, mask, ids)
    return scores


def codeword_sums(
    words: tuple[Tensor, Tensor, Tensor],
    queries: tuple[Tensor, Tensor | None],
    of_rows: tuple[Tensor | None, Tensor | None],
    ids: Tensor,
) -> Tensor | None:
    """Score rows ids (Q, R) that are sums of codewords, -inf for row N, for loops.

    words: codes (N, P*M) uint8, codebooks (P, M, 256, S), and the norms of codewords, (P, M*256) float64.
    queries: (Q, P*S), and their squared norms (Q, 1) by "l2". of_rows: scale (N,) by "cosine" and minus
    squares (N,) by "l2", else None. Returns None where a score cannot be told without tables.
    """
    scores: Tensor | None = loops_of("codeword_sums").codeword_sums(*words, *queries, *of_rows, ids)
    return scores


def table_sums(tables: Tables, ids: Tensor) -> Tensor | None:
    """Score rows ids (Q, R) as `adc_gather` by the tables of `lookup_tables`, without making these.

    tables: codes (N, B) uint8, centroids (M, K, S), queries (Q, M*S), whether entries are minus squared
    distances, scale (N,) and mask (N,) or None. None: no loop is here for it.
    """
    if not _sums_of_tables(tables):
        return None
    scores: Tensor = loops_of("table_sums").table_sums(*tables, ids)
    return scores


def closest_by_tables(
    tables: Tables, found: tuple[Tensor, Tensor], ceilings: Tensor, k: int
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Return what `closest` does, by the scores of `table_sums`. found: estimates and rows (Q, taken)."""
    if not _sums_of_tables(tables):
        return None
    best: tuple[Tensor, Tensor, Tensor | None] = loops_of("table_sums").closest_by_tables(
        *tables, *found, ceilings, k
    )
    return best


def _sums_of_tables(tables: Tables) -> bool:
    codes, centroids, queries, *_ = tables
    pairs_of_pairs = centroids.shape[1] in (2, 4)
    return not pairs_of_pairs and _here.may_search(queries, len(codes), 1) and codes.stride(1) == 1


def closest(
    estimates: Tensor,
    rows: Tensor,
    ceilings: Tensor,
    k: int,
    N: int,
    gather: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Find the k best of candidates, of which as few are scored exactly as prove it.

    Returns scores (Q, k), rows (Q, k) and which queries are not proven, (Q,) or None; see
    `gpuzip.loops.closest`. None without loops.
    """
    if not _here.may_search(estimates, N, k):
        return None
    found: tuple[Tensor, Tensor, Tensor | None] = loops_of("closest").closest(
        estimates, rows, ceilings, k, N, gather
    )
    return found
