"""The k best rows of every query in one pass over the codes, on CPUs and for sizes that have one.

These are not operators: a scan and `topk` give the same answers, bit for bit. They return None where no loop
is faster than those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.byte_tables import by_byte, byte_tables
from gpuzip._core.device import is_gpu
from gpuzip._core.few import is_plain
from gpuzip.ops._dispatch import loops_are_used, loops_of
from gpuzip.ops.adc import RowTerms
from gpuzip.ops.counted_bits import counting_pays, nearest_by_counts
from gpuzip.ops.pair_sums import COLUMN_BYTES, best_by_pairs, pair_columns, pairs_pay

Array = np.ndarray[Any, Any]
Found = tuple[Tensor, Tensor] | None

_MOST_ROWS = 1 << 32  # a key holds the number of a row in 32 bits


def adc_topk(
    planes: Sequence[Tensor],
    lut: Tensor,
    k: int,
    terms: RowTerms,
    shift: Tensor | None = None,
    turned: Tensor | None = None,
) -> Found:
    """Find the k rows with the best sums of table entries: scores (Q, k) float32, rows (Q, k) int64.

    planes: (N, B_p) uint8 each, whose bytes are those of one row, side by side. lut: (Q, M, K) for them, as
    `adc_scan` has it. shift: (Q, 1) or None, added to the scores of a query. The best row comes first, and of
    equal ones the lowest. With fewer than k allowed rows, the last places hold -inf and row 0.
    turned: what `turned` returned for these planes.
    """
    N, B = len(planes[0]), sum(plane.shape[1] for plane in planes)
    if lut.shape[2] not in (2, 4, 16, 256):
        return None
    if _is_plain(lut, N, k) and pairs_pay(len(lut), N, B):
        return best_by_pairs(planes, lut, k, terms, shift, turned)
    if not _may_search(lut, N, k):
        return None
    loops = _loops_of_registers("adc_topk")
    if loops is None or not loops.can_search(max(16, lut.shape[2]), B, len(lut)):
        return None
    planes = [plane if plane.stride(1) == 1 else plane.contiguous() for plane in planes]
    lut = byte_tables(lut, 16) if lut.shape[2] < 256 else lut.contiguous()
    found: Found = loops.adc_topk(planes, lut, k, *terms, shift, turned)
    return found


def turned(planes: Sequence[Tensor]) -> Tensor | None:
    """Turn rows of planes into columns of 32 rows, as `adc_topk` reads them soonest; None if it reads rows.

    They take as many bytes as the rows, and `turned_share` times as many where loops do not run.
    """
    if _is_plain(planes[0], len(planes[0]), 1):
        pays = pairs_pay(1, len(planes[0]), sum(plane.shape[1] for plane in planes))
        return pair_columns(planes) if pays else None
    if not _may_search(planes[0], len(planes[0]), 1) or _loops_of_registers("adc_topk") is None:
        return None
    planes = [plane if plane.stride(1) == 1 else plane.contiguous() for plane in planes]
    columns: Tensor = loops_of("adc_topk").turned(planes)
    return columns


def turned_share() -> int:
    """Return how many times as many bytes as its planes `turned` takes."""
    return 1 if loops_are_used() else COLUMN_BYTES


def tables_pay(codes: Tensor, K: int, Q: int) -> bool:
    """Return whether `adc_topk` is faster than a scan for codes (N, B) and Q tables of K entries."""
    if K not in (2, 4, 16, 256):
        return False
    if _is_plain(codes, len(codes), 1):
        return pairs_pay(Q, *codes.shape)
    if not _may_search(codes, len(codes), 1):
        return False
    loops = _loops_of_registers("adc_topk")
    return loops is not None and bool(loops.can_search(max(16, K), codes.shape[1], Q))


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
    if K not in (16, 256) or (K == 16 and M % 2) or not _may_search(codes, N, 1) or codes.stride(1) != 1:
        return None
    loops = _loops_of_registers("adc_few")
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
    if not _may_search(planes[0], len(planes[0]), 1) or any(plane.stride(1) != 1 for plane in planes):
        return None
    loops = _loops_of_registers("rabitq_few")
    return None if loops is None else loops.RaBitQFew(planes, *asked, *of_rows, turned, most)


def hamming_few(codes: Tensor, turned: Tensor | None) -> Few | None:
    """Prepare `hamming_topk` for few queries, in one call for all of it.

    codes: (N, B) uint8. turned: what `turned` returned for them.
    """
    loops = _loops_of_registers("hamming_few") if _may_search(codes, len(codes), 1) else None
    return None if loops is None or turned is None else loops.HammingFew(codes, turned)


class Few(Protocol):
    """A search of few queries of which all but these is at hand."""

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


def hamming_topk(queries: Tensor, codes: Tensor, k: int, mask: Tensor | None) -> Found:
    """Find the k rows that differ from a query in the fewest bits: minus distances (Q, k), rows (Q, k).

    queries (Q, B), codes (N, B) uint8, mask (N,) bool or None. Order and missing rows: see `adc_topk`.
    """
    if _is_plain(codes, len(codes), k) and counting_pays(len(queries)):
        return nearest_by_counts(queries, codes, k, mask)
    if not _may_search(codes, len(codes), k):
        return None
    loops = _loops_of_registers("hamming_topk")
    if loops is None or not loops.can_search(codes.shape[1]):
        return None
    codes = codes if codes.stride(1) == 1 else codes.contiguous()
    found: Found = loops.hamming_topk(queries, codes, k, mask)
    return found


def half_topk(
    store: Tensor, queries: Tensor, k: int, of_rows: tuple[Tensor | None, Tensor | None, Tensor | None]
) -> Found:
    """Find the k rows with the best q.x * scale + bias, in float32 with sums in any order.

    store (N, D) float16 or bfloat16, queries (Q, D) float32. of_rows: scale, bias (N,) float32 and mask. Rows
    whose score is NaN are left out. Returns what `adc_topk` does.
    """
    if store.dtype not in (torch.float16, torch.bfloat16) or not _may_search(store, len(store), k):
        return None
    loops = loops_of("half_topk")
    found: Found = loops.half_topk(store, queries, k, *of_rows) if loops.can_search(len(queries)) else None
    return found


def product_topk(
    write: Callable[[int, int, Tensor], None],
    N: int,
    queries: Tensor,
    k: int,
    of_rows: tuple[Tensor | None, Tensor | None, Tensor | None],
) -> Found:
    """Find the k best rows by q.x * scale + bias, in float32 with sums in any order, of rows made by tile.

    write(start, stop, out) writes rows (n, D) float32 to out. queries (Q, D) float32. of_rows: scale, bias
    (N,) float32 and mask. Rows whose score is NaN are left out. Returns what `adc_topk` does.
    """
    if not _may_search(queries, N, k):
        return None
    found: Found = loops_of("product_topk").product_topk(write, N, queries.contiguous(), k, *of_rows)
    return found


def table_rows(codes: Tensor, centroids: Tensor, share: int = 1) -> Callable[[int, int, Tensor], None]:
    """Return write(start, stop, out), which decodes rows as `decode` does, for loops that run."""
    write, words = loops_of("decode").writer(*by_byte(centroids, share))
    all_rows, whole = np.empty(0, np.int64), codes.numpy() if codes.is_contiguous() else None

    def some_rows(start: int, stop: int, out: Tensor) -> None:
        into = out.view(words).numpy()
        if whole is None:
            write(codes[start:stop].contiguous().numpy(), all_rows, 0, into)
        else:
            write(whole[:stop], all_rows, start, into)

    return some_rows


def can_multiply(queries: Tensor, N: int) -> bool:
    """Return whether `product_topk` runs here, for which rows are then written by loops."""
    return _may_search(queries, N, 1)


def sign_rows(
    planes: Sequence[Tensor], D: int, scale: Tensor, extra: Tensor
) -> Callable[[int, int, Tensor], None] | None:
    """Return write(start, stop, out) for `product_topk`, of RaBitQ's rows (n, D + E), or None without loops.

    planes: the first has W bytes per row; the second, if there is one, the bytes of all others. A row is its
    point of the grid times scale (N,), then extra (N, E).
    """
    if not _may_search(scale, len(scale), 1) or any(plane.stride(1) != 1 for plane in planes):
        return None
    write: Callable[[int, int, Tensor], None] = loops_of("sign_rows").row_writer(planes, D, scale, extra)
    return write


def sign_sums(
    planes: Sequence[Tensor], tables: Tensor, terms: RowTerms, shift: Tensor, ids: Tensor
) -> Tensor:
    """Score rows ids (Q, R) of `sign_rows` as `adc_topk` does by the tables of `sign_tables`, for loops.

    tables: (Q, 2W, 16), those of one plane.
    """
    scale, mask, extra, coef = terms
    scores: Tensor = loops_of("sign_rows").sign_sums(planes, tables, scale, extra, coef, shift, mask, ids)
    return scores


def mixed_rows(
    codes: Tensor, counts: Mapping[int, int], levels: Tensor, scale: Tensor, offset: Tensor
) -> Callable[[int, int, Tensor], None]:
    """Return write(start, stop, out) for rows of codes of several widths, for loops that run.

    counts: by width in bits, how many columns have it; the others have no code. levels: 2**width of each
    width, one after the other. A value is level * scale + offset, scale and offset (D,).
    """
    parts, byte, level = [], 0, 0
    for width, count in counts.items():
        parts.append((byte, -(-count * width // 8), width, count, level))
        byte, level = byte + parts[-1][1], level + (1 << width)
    loop, whole = loops_of("mixed_rows").write, codes.contiguous().numpy()
    factors = levels.view(torch.int32).numpy(), scale.numpy(), offset.numpy()

    def write(start: int, stop: int, out: Tensor) -> None:
        loop(np.array(parts, np.int64), *factors, whole, start, out.view(torch.int32).numpy(), out.numpy())

    return write


def step_rows(codes: Tensor, start: Tensor, step: Tensor, flip: int) -> Callable[[int, int, Tensor], None]:
    """Return write(first, stop, out) for `product_topk`: rows as `scalar_decode` has them, of 8 bits."""

    steps = start.contiguous().numpy(), step.contiguous().numpy()

    def write(first: int, stop: int, out: Tensor) -> None:
        some = codes[first:stop].contiguous().numpy()
        loops_of("scalar_encode").decode_bytes(some, *steps, flip, out.numpy())

    return write


Tables = tuple[Tensor, Tensor, Tensor, bool, Tensor | None, Tensor | None]


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
    return not pairs_of_pairs and _may_search(queries, len(codes), 1) and codes.stride(1) == 1


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
    if not _may_search(estimates, N, k):
        return None
    found: tuple[Tensor, Tensor, Tensor | None] = loops_of("closest").closest(
        estimates, rows, ceilings, k, N, gather
    )
    return found


def scalar_best(
    codes: tuple[Tensor, int, Tensor, Tensor],
    asked: tuple[Tensor, str],
    queries: tuple[Tensor, Tensor, Tensor],
    of_rows: tuple[Tensor | None, Tensor | None, Tensor | None],
    k: int,
    taken: int,
    is_few: bool,
    slack: Callable[[], Array],
) -> tuple[Array, Array, Array] | None:
    """Take rows by the scores of `scalar_scan`, and find the k best of them by those of `rescore`.

    codes: (N, D) uint8, flip, and start and step of `rescore`. asked: (Q, D) float32 and the metric. queries:
    (Q, D) int8, scale and offset (Q,). of_rows: scale, bias (N,) and mask. is_few: leave many queries to
    `scalar_scan`. slack: finds (Q,), the most by which scores are above estimates. Returns arrays: scores
    (Q, k), rows (Q, k), and the estimate of the last row taken (Q,), -inf where there were fewer.
    """
    if not _may_search(codes[0], len(codes[0]), taken):
        return None
    loops = loops_of("scalar_topk")
    if is_few and not loops.can_search(len(queries[0])):
        return None
    found: tuple[Array, Array, Array] = loops.scalar_best(codes, asked, queries, of_rows, k, taken, slack())
    return found


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
    if not _may_search(codes, len(codes), 1) or not codes.is_contiguous():
        return None
    few: Few = loops_of("scalar_few").ScalarFew(codes, *values, metric, facts, *of_rows, taken, most)
    return few


def reads_nibbles(device: torch.device) -> bool:
    """Return whether `adc_topk` is the fastest search for codes of 4 bits on this device."""
    loops = None if is_gpu(device) or not loops_are_used() else _loops_of_registers("adc_topk")
    return loops is not None and bool(loops.can_search(16, 1, 1))


def _is_plain(like: Tensor, N: int, k: int) -> bool:
    """Whether numpy searches instead of loops: on a CPU where these do not run."""
    return not loops_are_used() and is_plain(like) and 0 < k <= N


def _may_search(like: Tensor, N: int, k: int) -> bool:
    """Whether loops may run: never for the fake tensors of a trace, nor for what they cannot count."""
    here = type(like) is Tensor and not is_gpu(like.device) and loops_are_used()
    return here and 0 < k <= N < _MOST_ROWS and like.shape[0] > 0


def _loops_of_registers(name: str) -> Any:
    """Return a module of loops, or None without AVX2, where LLVM ends the process instead of compiling it."""
    return loops_of(name) if loops_of("_registers").is_here() else None


def has_registers() -> bool:
    """Whether the loops that search in one pass by instructions of AVX2 run here."""
    return loops_are_used() and _loops_of_registers("adc_topk") is not None
