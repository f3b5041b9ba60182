"""Interleaved rANS, block by block: the 32 lanes of a step are independent, so that the CPU overlaps them.

The symbol of a level is looked up, or, where levels are too far apart for that, found by a binary search.
Divisions are products with the reciprocal.
"""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip._core.rans_tables import cumulative, levels_in_order, most_bytes, symbols_by_level
from gpuzip.loops._arrays import flat, local
from gpuzip.loops._jit import jit
from gpuzip.loops.rans_decode import blocks_per_task

_LANES, _LEAST = np.int64(32), np.uint32(1 << 16)
_states = local(32, np.uint32)
_trellis = local(32, np.uint8)


def rans_encode(levels, block_rows, column_tables, freqs, values, next_state):
    N, C = levels.shape
    blocks, most = -(-N // block_rows), most_bytes(min(N, block_rows), C)
    buffer = torch.zeros((blocks, most), dtype=torch.uint8, device="cpu")
    lengths = torch.empty((blocks,), dtype=torch.int64, device="cpu")
    find = _symbols_of(freqs, values)
    steps = _steps_of(freqs)
    given, tables = levels.contiguous().numpy(), column_tables.contiguous().numpy()
    after, out, sizes = next_state.contiguous().numpy().reshape(-1), buffer.numpy(), lengths.numpy()

    def some_blocks(start, stop):
        rows = min(block_rows, N)
        words, escapes = np.empty(rows * C, np.uint16), np.empty(rows * C, np.int32)
        entries = np.empty(32 * C, np.int32)
        for b in range(start, stop):
            mine = given[b * block_rows : (b + 1) * block_rows]
            sizes[b] = _encode(
                *(mine, tables, after, *find, steps, words, escapes, entries, out[b]),
            )

    map_blocks(some_blocks, blocks, blocks_per_task(block_rows, C))
    return buffer, lengths


def _steps_of(freqs):
    """Return by table and symbol the reciprocal of its frequency; and the frequency, and its start."""
    frequency = freqs.numpy().reshape(-1).astype(np.uint64)
    reciprocal = np.uint64(1 << 44) // frequency.clip(1) + np.uint64(1)
    both = frequency | cumulative(freqs).numpy().reshape(-1).astype(np.uint64) << np.uint64(32)
    return np.stack([reciprocal, both], 1).reshape(-1)


def _symbols_of(freqs, values):
    """Return what `_find` takes: levels in order, their symbols, their number; a table, its first level."""
    parts = levels_in_order(freqs, values)
    table, least = symbols_by_level(*parts)
    ordered, symbols, count = (part.contiguous().numpy() for part in parts)
    return ordered.reshape(-1), symbols.reshape(-1), count, table.numpy(), least


@jit(
    "int64(int32[:, ::1], int32[::1], uint8[::1], int32[::1], uint8[::1], int32[::1], uint8[:, ::1], int64, "
    "uint64[::1], uint16[::1], int32[::1], int32[::1], uint8[::1])"
)
def _encode(
    levels, tables, after, ordered, symbols, count, direct, least, steps, words, escapes, entries, out
):
    """Write a block; return its bytes, or -1 - j: column j, the first, has a level without a symbol.

    Words and escapes are found last to first, and stand at the ends of their arrays until all are known.
    """
    rows, C = levels.shape
    lanes = min(rows, _LANES)
    states = _states()
    for lane in range(32):
        states[lane] = _LEAST
    word, escape, bad = len(words), len(escapes), C
    for first in range((rows - 1) // 32 * 32, -1, -32):
        width = min(_LANES, rows - first)
        found = _find(
            levels, first, width, tables, after, ordered, symbols, count, direct, least, steps, entries
        )
        bad = min(bad, found)
        if bad < C:
            continue
        for j in range(C - 1, -1, -1):
            for lane in range(width - 1, -1, -1):
                entry = np.uint64(entries[np.uint64(j * 32 + lane)])
                x, both = states[np.uint64(lane)], steps[np.uint64(2) * entry + np.uint64(1)]
                f, before = np.uint32(both), np.uint32(both >> np.uint64(32))
                full = np.uint32(x >> np.uint32(20) >= f)
                words[np.uint64(word - 1)] = x
                word -= np.int64(full)
                x >>= full << np.uint32(4)  # and no branch, which would be foreseen wrongly
                whole = np.uint32(np.uint64(x) * steps[np.uint64(2) * entry] >> np.uint64(44))
                states[np.uint64(lane)] = (whole << np.uint32(12)) + (x - whole * f) + before
                if entry & np.uint64(255) == 0:
                    escape -= 1
                    escapes[escape] = levels[first + lane, j]
    if bad < C:
        return -1 - bad
    return _place(states, lanes, words, word, escapes, escape, out)


@jit(
    "int64(int32[:, ::1], int64, int64, int32[::1], uint8[::1], int32[::1], uint8[::1], int32[::1], "
    "uint8[:, ::1], int64, uint64[::1], int32[::1])",
    inner=True,
)
def _find(levels, first, width, tables, after, ordered, symbols, count, direct, least, steps, entries):
    """Write table * 256 + symbol of a group by column and lane; return the first bad column, or C."""
    C, trellis, span = levels.shape[1], len(after) > 2, direct.shape[1]
    paths, every_level, every_symbol = _trellis(), flat(levels), flat(direct)
    for lane in range(32):
        paths[lane] = 0
    for j in range(C):
        known = True
        for lane in range(width):
            level = np.int64(every_level[np.uint64((first + lane) * C + j)])
            table = np.int64(tables[j])
            if trellis:
                path = np.int64(paths[lane])
                table += path & 1
                paths[lane] = after[np.uint64(2 * path + (((abs(level) + 1) >> 1) & 1))]
            symbol = np.int64(0)
            if span == 0:
                symbol = _searched(level, table, ordered, symbols, count)
            elif np.uint64(level - least) < np.uint64(span):
                symbol = np.int64(every_symbol[np.uint64(table * span + level - least)])
            entries[j * 32 + lane] = table * 256 + symbol
            known &= symbol != 0 or np.uint32(steps[np.uint64(512 * table + 1)]) != 0
        if not known:
            return j
    return C


@jit("int64(int64, int64, int32[::1], uint8[::1], int32[::1])", inner=True)
def _searched(level, table, ordered, symbols, count):
    """Return the symbol of a level by a binary search, or 0."""
    start = at = table * 256
    for half in (128, 64, 32, 16, 8, 4, 2, 1):
        at += half * (ordered[np.uint64(at + half - 1)] < level)
    known = (ordered[np.uint64(at)] == level) & (at - start < count[table])
    return np.int64(symbols[np.uint64(at)]) * known


@jit("int64(uint32[::1], int64, uint16[::1], int64, int32[::1], int64, uint8[::1])", inner=True)
def _place(states, lanes, words, word, escapes, escape, out):
    """Write the parts of a block one after the other; return how many bytes they take."""
    at = _put(out, 0, np.uint32(len(words) - word))
    for lane in range(lanes):
        at = _put(out, at, states[lane])
    for i in range(word, len(words)):
        out[at], out[at + 1] = words[i] & 255, words[i] >> 8
        at += 2
    for i in range(escape, len(escapes)):
        at = _put(out, at, np.uint32(escapes[i]))
    return at


@jit("int64(uint8[::1], int64, uint32)", inner=True)
def _put(out, at, number):
    for i in range(4):
        out[at + i] = (number >> np.uint32(8 * i)) & np.uint32(255)
    return at + 4
