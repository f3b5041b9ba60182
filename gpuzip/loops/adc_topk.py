"""The k best rows by sums of table entries, exactly, in one pass over the codes.

Tables are rounded to bytes, which stay in registers, and all rows are summed by them. The error of such a sum
is bounded, so a row is summed exactly only where its upper bound is above the k-th best score so far.
"""

import numpy as np
import torch

from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.loops import _registers, _registers512
from gpuzip.loops._arrays import local
from gpuzip.loops._blocks import AHEAD, AHEAD_IN_ORDER, LINE, rows_of_a_block, scratch
from gpuzip.loops._bounds import AT_LEAST, make_room, room_for_bounds, settle
from gpuzip.loops._columns import part, part_of_rows
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._least import best_of, clear_unused, key_of
from gpuzip.loops._register_bounds import (
    add_column,
    column_bounds,
    ends_of_table,
    plain_bounds,
    scaled_bounds,
    shifted_bounds,
)
from gpuzip.loops._registers import STEP, sums_of_nibbles, turn
from gpuzip.loops._row_terms import any_allowed, copy_terms
from gpuzip.loops._vectors256 import ROWS, address_of, copy_rows, is_here, lowest, prefetch

_QUERIES = 8  # whose tables stay in L1 while the columns of a tile pass by
_L1, _L2 = 1 << 14, 3 << 15  # bytes of columns per tile, for so many queries and for more
# Nanoseconds on AVX2, measured, of one query by registers and of sixteen by interleaved tables: per byte of
# codes, and per byte of a row for tables and candidates.
_ONE_QUERY, _SIXTEEN_QUERIES = 0.2, 2.4
_TABLE_OF_ONE, _TABLES_OF_SIXTEEN = 700, 80_000
_SMALL, _LARGE = 2.0**-100, 2.0**120  # spans of tables whose steps, and sums, fit in float32
_MOST = float(np.finfo(np.float32).max)
_NONE = np.empty(0, np.uint8)
_ends = local(2, np.float32)
_MOST_BYTES = 1024  # per row: with more, rounded tables are too coarse


def can_search(K, B, Q, N):
    """Return whether register tables of K entries are here for N rows of B bytes, and pay for Q queries."""
    return B <= _MOST_BYTES and is_here() and (K == 16 or bytes_pay(Q, N))


def bytes_pay(Q, N):
    """Return whether tables of 256 entries in registers are faster than those of `adc_scan`."""
    by_registers = Q * (_TABLE_OF_ONE + N * _ONE_QUERY)
    interleaved = -(-Q // 16) * (_TABLES_OF_SIXTEEN + N * _SIXTEEN_QUERIES)
    return _registers512.is_here() or by_registers < interleaved


def adc_topk(planes, lut, k, scale=None, mask=None, extra=None, coef=None, shift=None, turned=None):
    """Find the k best rows per query.

    planes: (N, B_p) uint8 each, side by side, their rows apart or not. turned: what `turned` returned for
    them, or None. lut (Q, M, K) float32: 256 entries for
    each byte, or 16 for each nibble, the low one first. Row n scores sum * scale[n] + sum over e of
    extra[n, e] * coef[q, e] + shift, as `adc_scan` has it, and a row is left out where mask is False.
    -> scores (Q, k), rows (Q, k).
    """
    Q, M, K = lut.shape
    E = 0 if extra is None else extra.shape[1]
    N, B = len(planes[0]), sum(plane.shape[1] for plane in planes)
    tables = lut.numpy().reshape(-1)
    luts, lines = np.zeros(Q * entries_of(K) * (B + B % 2), np.uint8), np.empty((Q, 3))
    round_tables(tables, M, K, min(127, 65535 // (2 * B)), luts, lines)
    places = places_of(planes)
    if scale is None and extra is not None:
        scale = torch.ones(N, dtype=torch.float32, device="cpu")
    terms = (
        part(scale, 0, N, np.float32),
        part(mask, 0, N, np.bool_),
        part_of_rows(None if extra is None else extra.T, 0, E).reshape(-1),
        part_of_rows(coef, 0, Q).reshape(-1),
        np.zeros(Q, np.float32) if shift is None else shift.reshape(-1).contiguous().numpy(),
    )
    size, blocks = columns_of(Q, K, B, turned is not None)
    kept = _NONE if turned is None else turned.numpy()

    def some_rows(start, stop):
        keys = np.empty((Q, room_for_bounds(k)), np.uint64)
        own = (
            kept if len(kept) else scratch.take("columns", (blocks + 1) * size, np.uint8),
            scratch.take("sums", 2 * ROWS, np.uint16),
            scratch.take("floats", (3 + E) * ROWS, np.float32),
            np.empty(3 * Q, np.intp),
            np.empty(2 * Q, np.float32),
        )
        lookups = tables, luts, lines, blocks, len(kept) > 0
        scan_of(K)(places, N, start, stop, *lookups, *terms, k, keys.reshape(-1), *own)
        return keys

    parts = map_blocks(some_rows, N, rows_of_a_block(N, B * Q, k), with_caller=True)
    return tuple(map(torch.from_numpy, best_of(parts, k)))


def entries_of(K):
    """Return the entries of the tables of a byte, of K entries each."""
    return 32 if K == 16 else 256


def columns_of(Q, K, B, is_kept=False):
    """Return the bytes of columns per 32 rows of B bytes, and how many times 32 rows make a tile.

    is_kept: the columns of all rows are kept. A tile that is made has room for what turning writes too much.
    """
    size = ROWS * (B + B % 2 + (0 if is_kept else STEP))
    return size, max(2, (_L1 if Q <= _QUERIES or K == 256 else _L2) // size // 2 * 2)


def places_of(planes):
    """Return the address, the bytes from row to row, and the bytes of a row of each plane."""
    return np.array([(p.data_ptr(), p.stride(0), p.shape[1]) for p in planes], np.int64)


def turned(planes):
    """Turn the bytes of all rows of planes (N, B_p) into columns, which searches need not do again.

    Byte j of row 32*i + r is at (32*i)*B + 32*j + r, B the bytes of a row of all planes, made even. Another
    32 rows of any bytes follow the last ones.
    """
    N, B = len(planes[0]), sum(plane.shape[1] for plane in planes)
    size = ROWS * (B + B % 2)
    columns = uninitialized(1, (-(-N // ROWS) + 1) * size + ROWS * STEP, torch.uint8)[0]
    edge = np.empty(size + ROWS * STEP, np.uint8)
    _turn_all(places_of(planes), N, size, columns.numpy(), edge)
    return columns


@jit("void(float32[::1], intp, intp, intp, uint8[::1], float64[:, ::1])")
def round_tables(tables, M, K, top, luts, lines):
    """Round tables to bytes up to `top`; lines: low, step and room per query.

    The exact sum is within room of low + step * (sum of bytes), also in float32.
    """
    ends = _ends()
    for q in range(len(lines)):
        low, size, reach, first = 0.0, 0.0, np.float32(0), q * M * K
        for m in range(M):
            ends_of_table(address_of(ends), address_of(tables) + 4 * (first + m * K), K)
            least, most = ends[0], ends[1]
            low += least
            size += max(abs(least), abs(most))
            reach = max(reach, most - least)
        # Half a step per entry with what float32 hides of it, M roundings in the float32 sum of M entries,
        # and the rounding of the bound itself.
        hidden = 2.0**-22 * M * size + 2.0**-20 * (abs(low) + M * np.float64(reach))
        lines[q, 0], lines[q, 1], lines[q, 2] = low, 1.0, M * np.float64(reach) + hidden
        if not reach > _SMALL or not size < _LARGE:  # all entries are 0
            if not size < _LARGE:
                lines[q, 0], lines[q, 2] = 0.0, _MOST
            for i in range(M * K):
                luts[q * (len(luts) // len(lines)) + i] = 0
            continue
        step = reach * (1 + 2.0**-20) / top
        lines[q, 1], lines[q, 2] = step, step * (0.501 * M + 1) + hidden
        scale, into = np.float32(1 / step), q * (len(luts) // len(lines))
        for m in range(M):
            table = tables[first + m * K : first + (m + 1) * K]
            rounded = luts[into + m * K : into + (m + 1) * K]
            ends_of_table(address_of(ends), address_of(table), K)
            least = ends[0]
            for i in range(K):
                rounded[i] = np.uint8(np.int32((table[i] - least) * scale + np.float32(0.5)))


@jit("void(intp, intp, intp, intp, intp, intp, intp)", inner=True)
def _turn_32(first, stride, width, end, rows, columns, edge):
    """Turn 32 rows from address `first` into columns. `end`: what may not be read."""
    if first + (ROWS - 1) * stride + width + STEP > end:  # 16 bytes at a time would pass it
        copy_rows(edge, first, stride, width, rows)
        first, stride = edge, width
    for j in range((width + STEP - 1) // STEP):
        turn(columns + ROWS * STEP * j, first + STEP * j, stride)


@jit("void(int64[:, ::1], intp, intp, intp, intp)", inner=True)
def _turn_block(places, N, r, columns, edge):
    """Turn up to 32 rows from row r of all planes into columns, side by side."""
    apart()
    for p in range(len(places)):
        stride, width = places[p, 1], places[p, 2]
        row, end = places[p, 0] + r * stride, places[p, 0] + (N - 1) * stride + width
        _turn_32(row, stride, width, end, min(ROWS, N - r), columns, edge)
        columns += ROWS * width
        for at in range(0, ROWS * stride, LINE):
            prefetch(row + AHEAD + at)


@jit("void(int64[:, ::1], intp, intp, uint8[::1], uint8[::1])")
def _turn_all(places, N, size, columns, edge):
    for b in range((N + ROWS - 1) // ROWS):
        _turn_block(places, N, b * ROWS, address_of(columns) + b * size, address_of(edge))


def _scan_of(entries, together, rounded_sums):
    """Return the scan for tables of so many entries per byte. together: queries whose tables stay in L1."""

    @jit(
        "void(int64[:, ::1], intp, intp, intp, float32[::1], uint8[::1], float64[:, ::1], intp, boolean, "
        "float32[::1], boolean[::1], float32[::1], float32[::1], float32[::1], intp, uint64[::1], "
        "uint8[::1], uint16[::1], float32[::1], intp[::1], float32[::1])",
        name=f"scan_{entries}",
    )
    def scan(
        places,
        N,
        first,
        last,
        tables,
        luts,
        lines,
        blocks,
        is_kept,
        scale,
        mask,
        extra,
        coef,
        shift,
        k,
        keys,
        columns,
        sums,
        floats,
        counts,
        worst,
    ):
        """Scan rows first to last.

        keys: (Q * room,) in all. columns: of all rows if is_kept, else for one tile of `blocks` times 32 rows
        and another 32 rows. sums: for 64 rows. floats:
        for 32 rows, bounds, sizes, factors and each column. counts (3Q,) and worst (2Q,): of each query how
        many keys there are, how many of them exact, and at how many others leave; the bound that a row must
        pass, and how far a bound may be from the score.
        """
        B = 0
        for p in range(len(places)):
            B += places[p, 2]
        Q, E, even = len(lines), len(coef) // len(lines), B + (B & 1)
        room, tile, turned, luts_at = len(keys) // Q, blocks * ROWS, address_of(columns), address_of(luts)
        size = ROWS * (even if is_kept else even + STEP)  # bytes of columns per 32 rows
        ahead = AHEAD_IN_ORDER if is_kept else 0
        bounds, sums_at, slack = address_of(floats), address_of(sums), np.float32(2.0**-20)
        sizes, edge_at = bounds + 4 * ROWS, bounds + 8 * ROWS
        terms = scale, extra, coef
        for q in range(Q):
            counts[q], counts[Q + q], counts[2 * Q + q] = 0, 0, k + AT_LEAST
            worst[q] = -np.inf
            worst[Q + q] = (
                np.float32(lines[q, 2]) + slack * abs(shift[q]) if len(scale) == 0 else np.float32(0)
            )
        for start in range(first, last, tile):
            stop = min(start + tile, last)
            if len(mask) and not any_allowed(mask, start, stop):
                continue
            count_of_blocks = (stop - start + ROWS - 1) // ROWS
            if is_kept:
                turned = address_of(columns) + start // ROWS * size
            else:
                for b in range(count_of_blocks):
                    _turn_block(places, N, start + b * ROWS, turned + b * size, turned + blocks * size)
            for group in range((Q + together - 1) // together):
                for both in range((count_of_blocks + 1) // 2):
                    for q in range(group * together, min((group + 1) * together, Q)):
                        low, step, error = (
                            np.float32(lines[q, 0]),
                            np.float32(lines[q, 1]),
                            np.float32(lines[q, 2]),
                        )
                        plain = low + (error + shift[q] + slack * abs(shift[q]))
                        limit, width, count = worst[q], worst[Q + q], counts[q]
                        table = luts_at + q * entries * even
                        rounded_sums(sums_at, turned + 2 * both * size, size, table, even, ahead)
                        for b in range(2 * both, min(2 * both + 2, count_of_blocks)):
                            r, n = start + b * ROWS, min(ROWS, stop - start - b * ROWS)
                            here = sums_at + (b & 1) * 2 * ROWS
                            if len(scale) == 0:
                                above = plain_bounds(bounds, here, plain, step, limit)
                            else:
                                factors, added, apart = (
                                    address_of(scale) + 4 * r,
                                    address_of(extra) + 4 * r,
                                    4 * N,
                                )
                                if n < ROWS:  # after the last rows nothing may be read
                                    copy_terms(floats, 2 * ROWS, ROWS, scale, extra, r, n)
                                    factors, added, apart = edge_at, edge_at + 4 * ROWS, 4 * ROWS
                                of_sums = here, low, step, error, factors
                                if E == 1:
                                    ends = added, coef[q], shift[q], slack, limit
                                    above = column_bounds(bounds, sizes, *of_sums, *ends)
                                else:
                                    scaled_bounds(bounds, sizes, *of_sums)
                                    for e in range(E):
                                        add_column(bounds, sizes, added + e * apart, coef[q * E + e])
                                    above = shifted_bounds(bounds, sizes, shift[q], slack, limit)
                            if n < ROWS:
                                above &= np.uint32((np.int64(1) << n) - 1)
                            if above == 0:
                                continue
                            while above != 0:
                                i = lowest(above)
                                above &= np.uint32(above - np.uint32(1))
                                if len(mask) == 0 or mask[r + i]:
                                    keys[q * room + count] = key_of(floats[i], r + i)
                                    count += 1
                                    if len(scale):
                                        size_of_row = floats[ROWS + i] + abs(shift[q])
                                        apart = abs(scale[r + i]) * error + slack * size_of_row
                                        width = max(width, apart) if apart < np.inf else np.float32(np.inf)
                            if count >= counts[2 * Q + q]:
                                counts[q], worst[Q + q] = count, width
                                make_room(
                                    keys, counts, worst, k, tables, entries, places, *terms, q, shift[q]
                                )
                                limit, count = worst[q], counts[q]
                        worst[Q + q], counts[q] = width, count
        for q in range(Q):
            settle(keys, counts, worst, k, tables, entries, places, *terms, q, shift[q])
        clear_unused(keys, counts, Q)

    return scan


_wider = _registers512 if _registers512.is_here() else _registers
_scans = {
    16: _scan_of(32, _QUERIES, sums_of_nibbles),
    256: _scan_of(256, 1, _wider.sums_of_bytes),
}


def scan_of(K):
    """Return the compiled scan for tables of K entries."""
    return _scans[K]
