"""The k best rows of every query in one pass over the codes, on CPUs and for sizes that have one.

These are not operators: a scan and `topk` give the same answers, bit for bit. They return None where no loop
is faster than those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.byte_tables import byte_tables
from gpuzip._core.device import is_gpu
from gpuzip.ops import _here
from gpuzip.ops._dispatch import loops_are_used, loops_of
from gpuzip.ops.adc import RowTerms
from gpuzip.ops.counted_bits import counting_pays, nearest_by_counts
from gpuzip.ops.pair_sums import COLUMN_BYTES, best_by_pairs, pair_columns, pairs_pay

Array = np.ndarray[Any, Any]
Found = tuple[Tensor, Tensor] | None


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
    if _here.numpy_may_search(lut, N, k) and pairs_pay(len(lut), N, B):
        return best_by_pairs(planes, lut, k, terms, shift, turned)
    if not _here.may_search(lut, N, k):
        return None
    loops = _here.loops_of_registers("adc_topk")
    if loops is None or not loops.can_search(max(16, lut.shape[2]), B, len(lut), N):
        return None
    planes = [plane if plane.stride(1) == 1 else plane.contiguous() for plane in planes]
    lut = byte_tables(lut, 16) if lut.shape[2] < 256 else lut.contiguous()
    found: Found = loops.adc_topk(planes, lut, k, *terms, shift, turned)
    return found


def turned(planes: Sequence[Tensor]) -> Tensor | None:
    """Turn rows of planes into columns of 32 rows, as `adc_topk` reads them soonest; None if it reads rows.

    They take as many bytes as the rows, and `turned_share` times as many where loops do not run.
    """
    if _here.numpy_may_search(planes[0], len(planes[0]), 1):
        pays = pairs_pay(1, len(planes[0]), sum(plane.shape[1] for plane in planes))
        return pair_columns(planes) if pays else None
    if not _here.may_search(planes[0], len(planes[0]), 1) or _here.loops_of_registers("adc_topk") is None:
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
    if _here.numpy_may_search(codes, len(codes), 1):
        return pairs_pay(Q, *codes.shape)
    if not _here.may_search(codes, len(codes), 1):
        return False
    loops = _here.loops_of_registers("adc_topk")
    return loops is not None and bool(loops.can_search(max(16, K), codes.shape[1], Q, len(codes)))


def hamming_topk(queries: Tensor, codes: Tensor, k: int, mask: Tensor | None) -> Found:
    """Find the k rows that differ from a query in the fewest bits: minus distances (Q, k), rows (Q, k).

    queries (Q, B), codes (N, B) uint8, mask (N,) bool or None. Order and missing rows: see `adc_topk`.
    """
    if _here.numpy_may_search(codes, len(codes), k) and counting_pays(len(queries)):
        return nearest_by_counts(queries, codes, k, mask)
    if not _here.may_search(codes, len(codes), k):
        return None
    loops = _here.loops_of_registers("hamming_topk")
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
    if store.dtype not in (torch.float16, torch.bfloat16) or not _here.may_search(store, len(store), k):
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
    if not _here.may_search(queries, N, k):
        return None
    found: Found = loops_of("product_topk").product_topk(write, N, queries.contiguous(), k, *of_rows)
    return found


def can_multiply(queries: Tensor, N: int) -> bool:
    """Return whether `product_topk` runs here, for which rows are then written by loops."""
    return _here.may_search(queries, N, 1)


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
    if not _here.may_search(codes[0], len(codes[0]), taken):
        return None
    loops = loops_of("scalar_topk")
    if is_few and not loops.can_search(len(queries[0])):
        return None
    found: tuple[Array, Array, Array] = loops.scalar_best(codes, asked, queries, of_rows, k, taken, slack())
    return found


def multiplies_many_bytes() -> bool:
    """Return whether `scalar_best` is the fastest search by codes of one byte for any number of queries."""
    return loops_are_used() and bool(loops_of("scalar_topk").searches_many())


def reads_nibbles(device: torch.device) -> bool:
    """Return whether `adc_topk` is the fastest search for codes of 4 bits on this device."""
    loops = None if is_gpu(device) or not loops_are_used() else _here.loops_of_registers("adc_topk")
    return loops is not None and bool(loops.can_search(16, 1, 1, 1))


def has_wide_tables() -> bool:
    """Return whether `adc_topk` looks up bytes by registers of 512 bits."""
    return loops_are_used() and bool(loops_of("_registers512").is_here())
