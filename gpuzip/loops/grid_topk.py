"""The rows with the best estimates by RaBitQ codes of several bits, by products of bytes in one pass.

A code c of b bits stands for the number 2c - (2**b - 1) of the grid. Queries are rounded to int8, and the sums of
products with all codes are exact. By the rest r of a query, a score is at most |r| times the length of a row on
the grid, times its scale, from the estimate.
"""

import numpy as np
import torch

from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._blocks import AHEAD_IN_ORDER, rows_of_a_block, scratch
from gpuzip.loops._columns import part, part_of_rows
from gpuzip.loops._grid_tiles512 import (
    GROUP,
    ROWS,
    TOGETHER,
    bytes_of_tile,
    estimates,
    is_here,
    pack,
    products_of_four,
    products_of_one,
    spread,
    squares,
)
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._least import best_of, clear_unused, cut, key_of, room_for, score_of
from gpuzip.loops._vectors256 import address_of, copy_rows
from gpuzip.loops._words import trailing_zeros
from gpuzip.loops.sign_rows import places_of

MOST_PACKED = 4  # bits, of which two codes fit in a byte
_MOST_COLUMNS = 1 << 14  # whose sums fit in int32, and so do they times two
_SMALL, _LARGE = 2.0**-100, 2.0**100  # units of queries whose products keep their digits
_SPARE = 64  # bytes after copies of rows
_QUARTER = ROWS // 4  # rows that `spread` takes
_NONE = np.empty(0, np.uint8)
_four_packed, _one_packed = products_of_four[True], products_of_one[True]
_four, _one = products_of_four[False], products_of_one[False]


def can_search(D, bits):
    """Return whether this CPU has the instructions for codes of so many bits and columns."""
    return is_here() and bits > 1 and D <= _MOST_COLUMNS


def grid_topk(planes, tiles, asked, terms, k, longest):
    """Find the k best rows per query by estimates, and by how much scores may be above these.

    planes: (N, W) and (N, (bits - 1) * W) uint8. tiles: what `packed_tiles` returned for them, or None. asked:
    across (Q, D), coef (Q, E) float32. terms: scale (N,), mask (N,) or None, extra (N, E). longest: of
    `longest`. -> estimates (Q, k), rows (Q, k), slack (Q,), which leaves out the roundings of float32.
    """
    (across, coef), (scale, mask, extra), places = asked, terms, places_of(planes)
    (Q, D), E, (N, W) = across.shape, coef.shape[1], planes[0].shape
    bits = int(places[:, 2].sum())
    numbers = np.empty(Q * 8 * W, np.uint8), np.empty(Q, np.float32), np.empty(Q, np.int32)
    rest = np.empty(Q)
    round_queries(across.contiguous().numpy().reshape(-1), D, bits, *numbers, rest)
    columns = part_of_rows(extra.T, 0, E).reshape(-1)
    of_rows = part(scale, 0, N, np.float32), part(mask, 0, N, np.bool_), columns
    kept, factors = _NONE if tiles is None else tiles.numpy(), part_of_rows(coef, 0, Q).reshape(-1)

    def some_rows(start, stop):
        keys = np.empty((Q, room_for(k)), np.uint64)
        own = np.empty(Q, np.intp), np.empty(Q, np.float32), *memory(W, bits, E)
        scan(places, N, start, stop, kept, W, *numbers, *of_rows, factors, k, keys.reshape(-1), *own)
        return keys

    parts = map_blocks(some_rows, N, rows_of_a_block(N, bits * W * Q, k), lone_here=True)
    with np.errstate(invalid="ignore"):  # where a query was not rounded
        slack = np.nan_to_num(rest * longest, nan=np.inf)
    return *map(torch.from_numpy, best_of(parts, k)), torch.from_numpy(slack)


def memory(W, bits, E):
    """Return what a scan needs for itself: a tile, copies of rows, sums, and estimates before terms of rows."""
    room = bytes_of_tile(W + -W % 8)
    return (
        scratch.take("grid tile", room, np.uint8),
        scratch.take("grid rows", ROWS * bits * W + 2 * _SPARE, np.uint8),
        scratch.take("grid sums", TOGETHER * ROWS, np.int32),
        scratch.take("grid estimates", (2 + E) * ROWS, np.float32),
    )


def packed_tiles(planes):
    """Return the codes of planes, of 4 bits or fewer, as packed tiles side by side: (bytes,) uint8."""
    (N, W), places = planes[0].shape, places_of(planes)
    size = bytes_of_tile(W, packed=True)
    tiles = uninitialized(1, -(-N // ROWS) * size, torch.uint8)[0]

    def some_rows(start, stop):
        tile, edge, _, _ = memory(W, int(places[:, 2].sum()), 0)
        _pack_all(places, N, W, start, stop, tiles.numpy(), tile, edge)

    map_blocks(some_rows, N, rows_of_a_block(N, planes[0].nbytes, 1), lone_here=True)
    return tiles


def longest(planes, scale):
    """Return the greatest length of a row on the grid times the size of its scale, of those that are finite."""
    (N, W), places, factors = planes[0].shape, places_of(planes), scale.contiguous().numpy()

    def some_rows(start, stop):
        tile, edge, sums, _ = memory(W, int(places[:, 2].sum()), 0)
        return _longest(places, N, W, start, stop, factors, tile, edge, sums)

    return max(map_blocks(some_rows, N, rows_of_a_block(N, planes[0].nbytes, 1), lone_here=True))


@jit("void(float32[::1], intp, intp, uint8[::1], float32[::1], int32[::1], float64[::1])")
def round_queries(across, D, bits, numbers, unit, offset, rest):
    """Round queries to unit * int8, padded with zeros, and find the lengths of the rests.

    offset: what the sum of int8 times the numbers of a row on the grid has beside twice that of codes.
    """
    columns = len(numbers) // len(unit)
    for q in range(len(unit)):
        largest, total, squared = np.float32(0), 0, 0.0
        for d in range(D):
            largest = max(largest, abs(across[q * D + d]))
            squared += np.float64(across[q * D + d]) * across[q * D + d]
        for d in range(columns):
            numbers[q * columns + d] = 0
        unit[q] = largest / np.float32(127)
        if not _SMALL < unit[q] < _LARGE:
            rest[q] = 1.001 * np.sqrt(squared) if unit[q] <= _SMALL else np.inf
            unit[q], offset[q] = np.float32(0), 0
            continue
        one, inverse, squared = np.float64(unit[q]), 1 / np.float64(unit[q]), 0.0
        for d in range(D):
            value = np.float64(across[q * D + d])
            number = max(-127.0, min(127.0, np.rint(value * inverse)))
            numbers[q * columns + d] = np.uint8(np.int64(number) & 255)
            total += np.int64(number)
            squared += (value - one * number) * (value - one * number)
        offset[q], rest[q] = -total * ((1 << bits) - 1), 1.001 * np.sqrt(squared)


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


@jit("void(int64[:, ::1], intp, intp, intp, intp, uint8[::1], uint8[::1], uint8[::1])")
def _pack_all(places, N, W, first, last, tiles, tile, edge):
    for start in range(first, last, ROWS):
        _fill(places, N, W, start, tile, edge)
        pack(address_of(tiles) + start // ROWS * GROUP * W, address_of(tile), W)


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


@jit("boolean(boolean[::1], intp, intp)", inner=True)
def _any(mask, start, stop):
    found = False
    for r in range(start, stop):
        found |= mask[r]
    return found


@jit("void(float32[::1], float32[::1], float32[::1], intp, intp)", inner=True)
def _copy_terms(floats, scale, extra, r, n):
    """Copy scale and extra columns of n rows from row r behind the estimates, each in steps of 64."""
    apart()
    for i in range(n):
        floats[ROWS + i] = scale[r + i]
        for e in range(len(floats) // ROWS - 2):
            floats[(2 + e) * ROWS + i] = extra[e * len(scale) + r + i]


@jit(
    "void(int64[:, ::1], intp, intp, intp, uint8[::1], intp, uint8[::1], float32[::1], int32[::1], "
    "float32[::1], boolean[::1], float32[::1], float32[::1], intp, uint64[::1], intp[::1], float32[::1], "
    "uint8[::1], uint8[::1], int32[::1], float32[::1])"
)
def scan(
    places,
    N,
    first,
    last,
    tiles,
    W,
    numbers,
    unit,
    offset,
    scale,
    mask,
    extra,
    coef,
    k,
    keys,
    counts,
    worst,
    tile,
    edge,
    sums,
    found,
):
    """Scan rows first to last, of which the first is a multiple of 64.

    tiles: of all rows, packed, or empty. numbers, unit, offset: of `round_queries`. keys: (Q * room,) in all.
    counts, worst: (Q,). The rest is what `memory` returns.
    """
    Q, E, is_packed, columns = len(unit), len(coef) // len(unit), len(tiles) > 0, 8 * W
    room, size, sums_at = len(keys) // Q, GROUP * W, address_of(sums)
    for q in range(Q):
        counts[q], worst[q] = 0, -np.inf
    for start in range(first, last, ROWS):
        n = min(ROWS, last - start)
        if len(mask) and not _any(mask, start, start + n):
            continue
        if is_packed:
            codes = address_of(tiles) + start // ROWS * size
        else:
            _fill(places, N, W, start, tile, edge)
            codes = address_of(tile)
        factors, added, step = address_of(scale) + 4 * start, address_of(extra) + 4 * start, 4 * N
        if n < ROWS:  # after the last rows nothing may be read
            _copy_terms(found, scale, extra, start, n)
            factors, added, step = address_of(found) + 4 * ROWS, address_of(found) + 8 * ROWS, 4 * ROWS
        of_rows, q = (factors, added, step), 0
        while q < Q:
            asked, are_four = address_of(numbers) + q * columns, Q - q >= TOGETHER
            ahead = AHEAD_IN_ORDER if q == 0 else 0
            if is_packed:
                if are_four:
                    _four_packed(sums_at, codes, W, asked, columns, ahead)
                else:
                    _one_packed(sums_at, codes, W, asked, columns, ahead)
            elif are_four:
                _four(sums_at, codes, W, asked, columns, 0)
            else:
                _one(sums_at, codes, W, asked, columns, 0)
            for i in range(TOGETHER if are_four else 1):
                here = sums_at + 4 * ROWS * i
                of_query = address_of(coef) + 4 * E * q, E, offset[q], unit[q], worst[q]
                above = estimates(address_of(found), here, *of_rows, *of_query)
                if n < ROWS:
                    above &= (np.uint64(1) << np.uint64(n)) - np.uint64(1)
                if above != 0:
                    _take(above, found, start, mask, q, k, room, keys, counts, worst)
                q += 1
    clear_unused(keys, counts, Q)


@jit(
    "void(uint64, float32[::1], intp, boolean[::1], intp, intp, intp, uint64[::1], intp[::1], float32[::1])",
    inner=True,
)
def _take(above, found, start, mask, q, k, room, keys, counts, worst):
    """Take rows of which a bit is set, and let all but the k best leave where there is no more room."""
    apart()
    while above != 0:
        i = np.intp(trailing_zeros(above))
        above &= above - np.uint64(1)
        if found[i] > worst[q] and (len(mask) == 0 or mask[start + i]):
            keys[q * room + counts[q]] = key_of(found[i], start + i)
            counts[q] += 1
            if counts[q] == room:
                worst[q] = score_of(cut(keys, q * room, room, k))
                counts[q] = k
