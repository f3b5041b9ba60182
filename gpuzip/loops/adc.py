"""Asymmetric distances: sums of table entries in the order of m, for one query or sixteen at a time."""

import numpy as np
import torch

from gpuzip._core.byte_tables import byte_tables
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import local
from gpuzip.loops._columns import part, part_of_rows
from gpuzip.loops._jit import jit
from gpuzip.loops._one_query import gather, scan
from gpuzip.loops._vector import max_into, sum_of_entries
from gpuzip.loops.bits import unpack_bits

_WORK = 1 << 17  # rows times queries per block: about 1 ms
_GATHERED = 1 << 14  # candidates per block
_FEW = 3  # below so many queries, separate tables are faster than interleaved ones
_WIDE = 16  # interleaved queries: a look-up reads a cache line
_AT_ONCE = 4  # rows summed in registers together

_sums_of_some = sum_of_entries(_WIDE, _AT_ONCE)
_sums_of_one = sum_of_entries(_WIDE, 1)
_max_into = max_into(_WIDE)
_scores = local(_AT_ONCE * _WIDE, np.float32)


def adc_scan(packed, lut, scale, mask, group, extra=None, coef=None):
    """Run the operator: (N, B) uint8, (Q, M, K), (N,) float32 or None, (N,) bool or None -> (Q, groups)."""
    tables = byte_tables(lut).numpy()
    N, (Q, M, K), shift = len(packed), tables.shape, group.bit_length() - 1
    coefs = part_of_rows(coef, 0, Q)
    best = np.full((Q, -(-N // group)), -np.inf, np.float32)
    if Q >= _FEW:
        wide = np.empty((-(-Q // _WIDE), M * K * _WIDE), np.float32)
        _side_by_side(tables.reshape(Q, M * K), wide)
        tables = wide
        coefs = np.pad(coefs, ((0, -Q % _WIDE), (0, 0))).reshape(len(wide), _WIDE, -1)

    def some_rows(start, stop):
        codes = _codes(packed[start:stop], M, K)
        columns = (
            part(scale, start, stop, np.float32),
            part(mask, start, stop, np.bool_),
            part_of_rows(extra, start, stop),
        )
        groups = best[:, start >> shift : -(-stop // group)]
        if Q < _FEW:
            for q in range(Q):
                scan(codes, tables[q], *columns, coefs[q], shift, groups[q])
        else:
            flat, width = best.reshape(-1), best.shape[1]
            own = np.empty(groups.shape[1] * _WIDE, np.float32)
            for t, entries in enumerate(tables):
                found = min(_WIDE, Q - t * _WIDE), flat[t * _WIDE * width + (start >> shift) :], width
                _scan_wide(codes.reshape(-1), M, K, entries, *columns, coefs[t], shift, *found, own)

    if best.size:
        map_blocks(some_rows, N, _rows_of_a_block(Q), lone_here=True)
    return torch.from_numpy(best)


def adc_gather(packed, lut, scale, mask, ids, extra=None, coef=None):
    """Run the operator: the scores of `adc_scan`, bit for bit, of rows ids (Q, R); -inf for invalid ids."""
    tables = byte_tables(lut).numpy()
    N, (_, M, K) = len(packed), tables.shape
    columns = part(scale, 0, N, np.float32), part(mask, 0, N, np.bool_), part_of_rows(extra, 0, N)
    coefs = part_of_rows(coef, 0, len(tables))
    packed, ids = packed.contiguous().numpy(), ids.contiguous().numpy()
    scores = np.empty(ids.shape, np.float32)

    def some_queries(start, stop):
        for q in range(start, stop):
            rows = packed[np.clip(ids[q], 0, N - 1)]
            codes = _codes(torch.from_numpy(rows), M, K)
            gather(codes, tables[q], *columns, coefs[q], N, ids[q], scores[q])

    if scores.size and N:
        map_blocks(some_queries, len(tables), max(1, _GATHERED // ids.shape[1]), lone_here=True)
    return (
        torch.from_numpy(scores)
        if N
        else torch.full(ids.shape, float("-inf"), dtype=torch.float32, device="cpu")
    )


def _rows_of_a_block(Q):
    """Return the rows per block, a multiple of every group."""
    return max(8192, _WORK // Q // 1024 * 1024)


def _codes(packed, M, K):
    """Unpack (n, B) bytes to (n, M) codes."""
    return (packed if K == 256 else unpack_bits(packed, M, K.bit_length() - 1)).contiguous().numpy()


@jit("void(float32[:, ::1], float32[:, ::1])")
def _side_by_side(tables, wide):
    """Interleave (Q, E) to (ceil(Q / 16), E * 16): entry e of sixteen queries in one cache line."""
    Q, E = tables.shape
    for q in range(len(wide) * _WIDE):
        t, w = q // _WIDE, q % _WIDE
        for e in range(E):
            wide[t, e * _WIDE + w] = tables[q, e] if q < Q else np.float32(0)


@jit("void(float32[::1], float32, float32[::1], float32[:, ::1])", inner=True)
def _add_extra(scores, factor, extra, coef):
    """Multiply scores (16,) by factor, then add extra[e] * coef[:, e] in the order of e."""
    for w in range(_WIDE):
        score = scores[w] * factor
        for e in range(len(extra)):
            score += extra[e] * coef[w, e]
        scores[w] = score


@jit(
    "void(uint8[::1], intp, intp, float32[::1], float32[::1], boolean[::1], float32[:, ::1], float32[:, "
    "::1], intp, intp, float32[::1], intp, float32[::1])",
    "void(int32[::1], intp, intp, float32[::1], float32[::1], boolean[::1], float32[:, ::1], float32[:, "
    "::1], intp, intp, float32[::1], intp, float32[::1])",
)
def _scan_wide(codes, M, K, table, scale, mask, extra, coef, shift, Q, best, stride, tops):
    """codes (n * M,), table (M * K * 16,), coef (16, E) -> best [up to 16, groups], rows `stride` apart.

    tops: memory for groups * 16.
    """
    scores = _scores()
    n = len(codes) // M
    groups = (n + (1 << shift) - 1) >> shift
    for t in range(groups * _WIDE):
        tops[t] = -np.inf
    for first in range(0, n, _AT_ONCE):
        last = min(first + _AT_ONCE, n)
        if last - first == _AT_ONCE:
            _sums_of_some(scores, 0, table, K, codes, first * M, M)
        else:
            for r in range(first, last):
                _sums_of_one(scores, (r - first) * _WIDE, table, K, codes, r * M, M)
        for r in range(first, last):
            if len(mask) == 0 or mask[r]:
                factor = scale[r] if len(scale) else np.float32(1)
                if coef.shape[1]:
                    _add_extra(scores[(r - first) * _WIDE : (r - first + 1) * _WIDE], factor, extra[r], coef)
                    factor = np.float32(1)
                _max_into(tops, (r >> shift) * _WIDE, scores, (r - first) * _WIDE, factor)
    for q in range(Q):
        for g in range(groups):
            best[q * stride + g] = tops[g * _WIDE + q]
