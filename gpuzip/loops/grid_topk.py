"""The rows that may be best by RaBitQ codes of several bits, by products of bytes in one pass.

A code c of b bits stands for the number 2c - (2**b - 1) of the grid. Queries are rounded to int8, and the
sums of products with all codes are exact. By the rest r of a query, a score is at most |r| times the length
of a row on the grid, times its scale, from the estimate.
"""

import numpy as np
import torch

from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import local
from gpuzip.loops._blocks import rows_of_a_block, scratch
from gpuzip.loops._bounds import keep_above
from gpuzip.loops._columns import part, part_of_rows
from gpuzip.loops._grid_tiles512 import (
    GROUP,
    ROWS,
    TOGETHER,
    bytes_of_tile,
    codes_per_byte,
    estimates_of_four,
    estimates_of_one,
    is_here,
    packs,
    spread,
    squares,
)
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._least import clear_unused, cut, key_of, score_of
from gpuzip.loops._row_terms import any_allowed, copy_terms
from gpuzip.loops._vectors256 import address_of, copy_rows
from gpuzip.loops._words import trailing_zeros
from gpuzip.loops.sign_rows import places_of

_MOST_COLUMNS = 1 << 14  # whose sums fit in int32
_FASTER = 8  # than searches by tables, about
_MOST = 2.0**100  # of sizes of products whose sums fit in float32
_AT_LEAST = 64  # keys that are taken before others leave
_SMALL, _LARGE = 2.0**-100, 2.0**60  # units of queries whose products keep their digits
# Bytes from a tile to what is fetched meanwhile; fewer for queries that share a tile, which stays in L1.
_AHEAD, _AHEAD_OF_MANY = 1 << 14, 1 << 12
_SPARE = 64  # bytes after copies of rows
_QUARTER = ROWS // 4  # rows that `spread` takes
_NONE = np.empty(0, np.uint8)
_four, _four_of_halves, _four_of_quarters = (estimates_of_four[per_byte] for per_byte in (1, 2, 4))
_one, _one_of_halves, _one_of_quarters = (estimates_of_one[per_byte] for per_byte in (1, 2, 4))
_halves, _quarters = packs[2], packs[4]
_above = local(TOGETHER, np.uint64)


def can_search(D, bits):
    """Return whether this CPU has the instructions for codes of so many bits and columns."""
    return is_here() and bits > 1 and D <= _MOST_COLUMNS


def columns_of(W):
    """Return how many numbers a query has, of planes of W bytes per bit."""
    return 8 * (W + W % 2)


def room_for(k):
    """Return the keys per query."""
    return k + max(4 * _AT_LEAST, k)


def work_of(bits, W, Q):
    """Return the work of Q queries per row, in bytes of slower searches, for `rows_of_a_block`."""
    return -(-bits * W * Q // _FASTER)


def best_estimates(planes, tiles, asked, terms, facts, k):
    """Find the rows per query that may be among the k best, by estimates.

    planes, tiles, asked, terms, facts: see `grid_best`. -> keys of estimates (Q, room) in any order, unused
    places NONE; slack (Q,) float64, by how much scores may be above and below estimates; lost (Q,) float32,
    the greatest estimate of rows that were left out for want of room, or -inf.
    """
    (across, coef, shift), (scale, mask, extra), places = asked, terms, places_of(planes)
    (Q, D), E, (N, W) = across.shape, coef.shape[1], planes[0].shape
    bits = int(places[:, 2].sum())
    numbers, slack = (np.empty(Q * columns_of(W), np.uint8), *np.empty((2, Q), np.float32)), np.empty(Q)
    per_byte = codes_per_byte(bits)
    size = bytes_of_tile(W, per_byte)
    kept, factors = _NONE if tiles is None else tiles.numpy(), coef.numpy().reshape(-1)
    about = factors, shift.numpy().reshape(-1), facts
    round_queries(across.numpy().reshape(-1), D, bits, *about, *numbers, slack)
    columns = part_of_rows(extra.T, 0, E).reshape(-1)
    of_rows = part(scale, 0, N, np.float32), part(mask, 0, N, np.bool_), columns

    def some_rows(start, stop):
        keys, lost = np.empty((Q, room_for(k)), np.uint64), np.empty(Q, np.float32)
        own = lost, np.empty(2 * Q, np.intp), np.empty(Q, np.float32), *memory(W, bits, E)
        of_queries = *numbers, *of_rows, factors, slack
        scan(places, N, start, stop, kept, per_byte, size, W, *of_queries, k, keys.reshape(-1), *own)
        return keys, lost

    found = map_blocks(some_rows, N, rows_of_a_block(N, work_of(bits, W, Q), k), with_caller=True)
    keys, lost = (list(parts) for parts in zip(*found, strict=True))
    return (keys[0] if len(keys) == 1 else np.concatenate(keys, 1)), slack, np.max(lost, 0)


def memory(W, bits, E):
    """Return memory for a scan: a tile, copies of rows, sums, and estimates before terms of rows."""
    room = bytes_of_tile(W + -W % 8)
    return (
        scratch.take("grid tile", room, np.uint8),
        scratch.take("grid rows", ROWS * bits * W + 2 * _SPARE, np.uint8),
        scratch.take("grid sums", 2 * ROWS, np.int32),
        scratch.take("grid estimates", (TOGETHER + 1 + E) * ROWS, np.float32),
    )


def tiles_of(planes, most):
    """Return the codes of planes as tiles side by side, packed as `codes_per_byte` says: (bytes,).

    They are those of the first rows, if those of all would take more than so many bytes.
    """
    (N, W), places = planes[0].shape, places_of(planes)
    bits = int(places[:, 2].sum())
    size = bytes_of_tile(W, codes_per_byte(bits))
    count = min(-(-N // ROWS), most // size)
    tiles = uninitialized(1, count * size, torch.uint8)[0]

    def some_rows(start, stop):
        tile, edge, _, _ = memory(W, bits, 0)
        _make(places, N, W, start, stop, codes_per_byte(bits), size, tiles.numpy(), tile, edge)

    rows = min(N, count * ROWS)
    map_blocks(some_rows, rows, rows_of_a_block(rows, bits * W, 1), with_caller=True)
    return tiles


def longest(planes, scale):
    """Return the greatest length of a row on the grid times its scale, of those that are finite."""
    (N, W), places, factors = planes[0].shape, places_of(planes), scale.contiguous().numpy()
    bits = int(places[:, 2].sum())

    def some_rows(start, stop):
        tile, edge, sums, _ = memory(W, bits, 0)
        return _longest(places, N, W, start, stop, factors, tile, edge, sums)

    return max(map_blocks(some_rows, N, rows_of_a_block(N, bits * W, 1), with_caller=True))


@jit(
    "void(float32[::1], intp, intp, float32[::1], float32[::1], float64[::1], uint8[::1], float32[::1], "
    "float32[::1], float64[::1])"
)
def round_queries(across, D, bits, coef, shift, facts, numbers, unit, base, slack):
    """Round queries to whole numbers of int8, padded with zeros.

    The product with a row on the grid is about unit * (sum of numbers * codes) + base. slack: by how much
    scores may be above and below estimates.
    """
    Q, columns, E = len(unit), len(numbers) // len(unit), len(coef) // len(unit)
    for q in range(Q):
        largest, total, squared, sizes = np.float32(0), 0, 0.0, 0.0
        for d in range(D):
            value = np.float64(across[q * D + d])
            largest = max(largest, abs(across[q * D + d]))
            squared += value * value
            sizes += abs(value)
        for d in range(columns):
            numbers[q * columns + d] = 0
        step = largest / np.float32(127)
        unit[q] = base[q] = np.float32(0)
        if _SMALL < step < _LARGE:
            one, inverse, squared = np.float64(step), 1 / np.float64(step), 0.0
            for d in range(D):
                value = np.float64(across[q * D + d])
                number = max(-127.0, min(127.0, np.rint(value * inverse)))
                numbers[q * columns + d] = np.uint8(np.int64(number) & 255)
                total += np.int64(number)
                squared += (value - one * number) * (value - one * number)
            unit[q], base[q] = 2 * one, -one * total * ((1 << bits) - 1)
        sizes *= facts[2]
        for e in range(E):
            sizes += np.float64(abs(coef[q * E + e])) * facts[3 + e]
        rest = 1.001 * np.sqrt(squared) * facts[0]
        slack[q] = rest + sizes * facts[1] + 2.0**-21 * np.float64(abs(shift[q])) + 2.0**-120
        if not (step < _LARGE and sizes < _MOST and slack[q] < _MOST):
            slack[q] = np.inf


@jit("void(int64[:, ::1], intp, intp, intp, uint8[::1], uint8[::1])", inner=True)
def _fill(places, N, W, start, tile, edge):
    """Write the codes of up to 64 rows from row start to a tile."""
    apart()
    bits, into = places[0, 2] + places[1, 2], address_of(edge)
    more = W + 7 - (W + 7) % 8 - W
    signs, step = places[0, 0] + start * places[0, 1], places[0, 1]
    others, other_step = places[1, 0] + start * places[1, 1], places[1, 1]
    if (start + ROWS - N) * step + more > 0:  # reads of 8 bytes would pass the last row
        copy_rows(into, signs, step, W, min(ROWS, N - start))
        signs, step = into, W
    if (start + ROWS - N) * other_step + more > 0:
        into += ROWS * W + _SPARE
        copy_rows(into, others, other_step, W * places[1, 2], min(ROWS, N - start))
        others, other_step = into, W * places[1, 2]
    for quarter in range(4):
        r, place = quarter * _QUARTER, address_of(tile) + quarter * (GROUP // 4)
        spread(place, signs + r * step, step, others + r * other_step, other_step, W, bits)


@jit("void(int64[:, ::1], intp, intp, intp, intp, intp, intp, uint8[::1], uint8[::1], uint8[::1])")
def _make(places, N, W, first, last, per_byte, size, tiles, tile, edge):
    for start in range(first, last, ROWS):
        _fill(places, N, W, start, tile, edge)
        into, codes = address_of(tiles) + start // ROWS * size, address_of(tile)
        if per_byte == 4:
            _quarters(into, codes, W)
        elif per_byte == 2:
            _halves(into, codes, W)
        else:
            copy_rows(into, codes, size, size, 1)


@jit("float64(int64[:, ::1], intp, intp, intp, intp, float32[::1], uint8[::1], uint8[::1], int32[::1])")
def _longest(places, N, W, first, last, scale, tile, edge, sums):
    top, most = (1 << (places[0, 2] + places[1, 2])) - 1, 0.0
    for start in range(first, last, ROWS):
        _fill(places, N, W, start, tile, edge)
        squares(address_of(sums), address_of(tile), W)
        for r in range(min(ROWS, N - start)):
            total = np.int64(sums[ROWS + r])
            square = 4 * (sums[r] + 128 * total) - 4 * top * total + 8 * W * top * top
            size = abs(np.float64(scale[start + r])) * np.sqrt(np.float64(square))
            most = max(most, size if size < np.inf else 0.0)
    return 1.001 * most


@jit(
    "void(int64[:, ::1], intp, intp, intp, uint8[::1], intp, intp, intp, uint8[::1], float32[::1], "
    "float32[::1], float32[::1], boolean[::1], float32[::1], float32[::1], float64[::1], intp, uint64[::1], "
    "float32[::1], intp[::1], float32[::1], uint8[::1], uint8[::1], int32[::1], float32[::1])"
)
def scan(
    places,
    N,
    first,
    last,
    tiles,
    per_byte,
    size,
    W,
    numbers,
    unit,
    base,
    scale,
    mask,
    extra,
    coef,
    slack,
    k,
    keys,
    lost,
    counts,
    worst,
    tile,
    edge,
    sums,
    found,
):
    """Scan rows first to last, of which the first is a multiple of 64.

    tiles: of the first rows, or empty, of `size` bytes each. numbers, unit, base, slack: of `round_queries`.
    keys: (Q * room,) in all. lost: see `best_estimates`. counts (2Q,), worst (Q,): how many keys each query
    has, and at how many others leave; the estimate that a row must pass. The rest is what `memory` returns.
    """
    Q, E, columns, above = len(unit), len(coef) // len(unit), len(numbers) // len(unit), _above()
    into, ahead_of_first = (address_of(found), address_of(above)), _AHEAD if Q < TOGETHER else _AHEAD_OF_MANY
    for q in range(Q):
        counts[q], counts[Q + q], worst[q], lost[q] = 0, k + _AT_LEAST, -np.inf, -np.inf
    for start in range(first, last, ROWS):
        n, is_kept = min(ROWS, last - start), start // ROWS * size < len(tiles)
        if len(mask) and not any_allowed(mask, start, start + n):
            continue
        codes = address_of(tiles) + start // ROWS * size if is_kept else address_of(tile)
        if not is_kept:
            _fill(places, N, W, start, tile, edge)
        of_rows, q = (address_of(scale) + 4 * start, address_of(extra) + 4 * start, 4 * N), 0
        if n < ROWS:  # after the last rows nothing may be read
            copy_terms(found, TOGETHER * ROWS, ROWS, scale, extra, start, n)
            copied = address_of(found) + 4 * TOGETHER * ROWS
            of_rows = copied, copied + 4 * ROWS, 4 * ROWS
        while q < Q:
            are_four, ahead = Q - q >= TOGETHER, ahead_of_first if is_kept and q == 0 else 0
            of_queries = (
                address_of(numbers) + q * columns,
                address_of(unit) + 4 * q,
                address_of(base) + 4 * q,
                address_of(worst) + 4 * q,
            )
            factors = address_of(coef) + 4 * E * q, E
            given = codes, W, ahead, *of_queries, *of_rows, *factors
            of_bytes = not is_kept or per_byte == 1
            if are_four:
                if of_bytes:
                    some = _four(*into, *given)
                elif per_byte == 2:
                    some = _four_of_halves(*into, *given)
                else:
                    some = _four_of_quarters(*into, *given)
            elif of_bytes:
                some = _one(*into, *given)
            elif per_byte == 2:
                some = _one_of_halves(*into, *given)
            else:
                some = _one_of_quarters(*into, *given)
            together = TOGETHER if are_four else 1
            if some != 0:
                for i in range(together):
                    bits = (
                        above[i] if n == ROWS else above[i] & ((np.uint64(1) << np.uint64(n)) - np.uint64(1))
                    )
                    if bits != 0:
                        _take(bits, found, i, start, mask, q + i, k, keys, slack, lost, counts, worst)
            q += together
    clear_unused(keys, counts, Q)


@jit(
    "void(uint64, float32[::1], intp, intp, boolean[::1], intp, intp, uint64[::1], float64[::1], "
    "float32[::1], intp[::1], float32[::1])",
    inner=True,
)
def _take(above, found, place, start, mask, q, k, keys, slack, lost, counts, worst):
    """Take rows of which a bit is set."""
    apart()
    Q = len(worst)
    into, count = len(keys) // Q * q, counts[q]
    while above != 0:
        i = np.intp(trailing_zeros(above))
        above &= above - np.uint64(1)
        score = found[place * ROWS + i]
        if score > worst[q] and (len(mask) == 0 or mask[start + i]):
            keys[into + count] = key_of(score, start + i)
            count += 1
            if count == counts[Q + q]:
                counts[q] = count
                _leave(q, k, keys, slack, lost, counts, worst)
                count = counts[q]
    counts[q] = count


@jit("void(intp, intp, uint64[::1], float64[::1], float32[::1], intp[::1], float32[::1])", inner=True)
def _leave(q, k, keys, slack, lost, counts, worst):
    """Let the keys of a query leave that k others are better than, whatever estimates hide.

    Where too many stay, those with the least estimates are lost.
    """
    apart()
    Q = len(worst)
    room = len(keys) // Q
    first, most = room * q, room - _AT_LEAST
    limit = limit_of(score_of(cut(keys, first, counts[q], k)), slack[q])
    count = keep_above(keys, first + k, first + k, first + counts[q], limit) - first
    if count > most:
        lost[q] = limit = score_of(cut(keys, first, count, most))
        count = most
    worst[q], counts[q], counts[Q + q] = limit, count, min(room, count + max(_AT_LEAST, k))


@jit("float32(float32, float64)", inner=True)
def limit_of(estimate, slack):
    """Return an estimate such that no row with less is better than k rows with this one or more."""
    limit = np.float64(estimate) - 2.002 * slack
    return np.float32(limit - 2.0**-22 * abs(limit))
