"""Interleaved rANS, block by block: the 32 lanes of a step are independent, so that the CPU overlaps them.

The symbol of a slot is looked up, and then in one word what it stands for.
"""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip._core.rans_tables import cumulative, symbol_of_slot
from gpuzip.loops._arrays import local
from gpuzip.loops._jit import jit

_TASK = 1 << 16  # values per task of a thread
_COLUMNS = 16  # that are decoded before their levels go to their rows: a line of the cache
_LANES, _LEAST = np.int64(32), np.uint32(1 << 16)
_states = local(32, np.uint32)
_trellis = local(32, np.uint8)
_tile = local(32 * _COLUMNS, np.int32)


def rans_decode(stream, starts, n, block_rows, column_tables, freqs, values, next_state):
    C, blocks = len(column_tables), len(starts)
    levels = torch.empty((n, C), dtype=torch.int32, device="cpu")
    ok = torch.empty((blocks,), dtype=torch.bool, device="cpu")
    slots = symbol_of_slot(freqs).contiguous().numpy().reshape(-1)
    data, places = stream.contiguous().numpy(), starts.contiguous().numpy()
    model = (
        column_tables.contiguous().numpy(),
        slots,
        _entries_of(freqs, values),
        next_state.contiguous().numpy().reshape(-1),
    )
    out, right = levels.numpy(), ok.numpy()

    def some_blocks(start, stop):
        first, last = start * block_rows, min(stop * block_rows, n)
        _decode(data, places[start:stop], block_rows, *model, out[first:last], right[start:stop])

    map_blocks(some_blocks, blocks, blocks_per_task(block_rows, C))
    return levels, ok


def _entries_of(freqs, values):
    """Return by table and symbol its level, from bit 32 on its start, from 44 on its frequency - 1."""
    level = values.contiguous().numpy().reshape(-1).view(np.uint32).astype(np.uint64)
    before = cumulative(freqs).numpy().reshape(-1).astype(np.uint64) & np.uint64(4095)
    frequency = freqs.contiguous().numpy().reshape(-1).clip(1).astype(np.uint64) - np.uint64(1)
    return level | before << np.uint64(32) | frequency << np.uint64(44)


def blocks_per_task(block_rows, C):
    return max(1, _TASK // max(1, block_rows * C))


@jit("uint32(uint8[::1], int64)", inner=True)
def _get(data, at):
    low = np.uint32(data[at]) | np.uint32(data[at + 1]) << np.uint32(8)
    return low | np.uint32(data[at + 2]) << np.uint32(16) | np.uint32(data[at + 3]) << np.uint32(24)


@jit(
    "void(uint8[::1], int64[:, ::1], int64, int32[::1], uint8[::1], uint64[::1], uint8[::1], "
    "int32[:, ::1], boolean[::1])"
)
def _decode(data, places, block_rows, tables, slots, entries, after, out, right):
    for b in range(len(places)):
        first = b * block_rows
        last = min(first + block_rows, len(out))
        start, end, body = places[b, 0], places[b, 1], 4 + 4 * min(last - first, _LANES)
        right[b] = False
        if 0 <= start <= end <= len(data) and end - start >= body:
            words = np.int64(_get(data, start))
            left = end - start - body - 2 * words
            if left >= 0 and left % 4 == 0:
                right[b] = _decode_block(
                    data, start, end - left, end, first, last, tables, slots, entries, after, out
                )
        if not right[b]:
            for r in range(first, last):
                for j in range(out.shape[1]):
                    out[r, j] = 0


@jit(
    "boolean(uint8[::1], int64, int64, int64, int64, int64, int32[::1], uint8[::1], uint64[::1], "
    "uint8[::1], int32[:, ::1])",
    inner=True,
)
def _decode_block(data, start, escape, end, first, last, tables, slots, entries, after, out):
    """Decode the rows first .. last, whose words end at `escape`; return whether the bytes are right."""
    C, trellis = out.shape[1], len(after) > 2
    states, paths, tile = _states(), _trellis(), _tile()
    lanes = min(last - first, _LANES)
    for lane in range(lanes):
        states[lane] = _get(data, start + 4 + 4 * lane)
    word, words_end, right = start + 4 + 4 * lanes, escape, True
    for group in range(first, last, 32):
        width = min(_LANES, last - group)
        for lane in range(32):
            paths[lane] = 0
        for begin in range(0, C, _COLUMNS):
            columns = min(_COLUMNS, C - begin)
            for j in range(columns):
                table = np.uint64(tables[begin + j])
                sure = words_end - word >= 2 * width
                for lane in range(width):
                    x, own = states[lane], table
                    if trellis:
                        own += np.uint64(paths[lane] & 1)
                    slot = x & np.uint32(4095)
                    symbol = np.uint64(slots[(own << np.uint64(12)) + np.uint64(slot)])
                    entry = entries[(own << np.uint64(8)) + symbol]
                    before = np.uint32(entry >> np.uint64(32)) & np.uint32(4095)
                    x = (np.uint32(entry >> np.uint64(44)) + np.uint32(1)) * (x >> np.uint32(12))
                    x += slot - before
                    low = x < _LEAST
                    if sure:  # and no branch, which would be foreseen wrongly
                        next_word = np.uint32(data[np.uint64(word)])
                        next_word |= np.uint32(data[np.uint64(word + 1)]) << np.uint32(8)
                        taken = np.uint32(low)
                        x = (x << (taken << np.uint32(4))) | (next_word & (np.uint32(0) - taken))
                        word += 2 * np.int64(taken)
                    elif low:
                        if word < words_end:
                            x = (x << np.uint32(16)) | (
                                np.uint32(data[word]) | np.uint32(data[word + 1]) << np.uint32(8)
                            )
                            word += 2
                        else:
                            return False
                    states[lane] = x
                    level = np.int32(np.uint32(entry))
                    if symbol == 0:
                        if escape >= end:
                            return False
                        level = np.int32(_get(data, escape))
                        escape += 4
                    tile[lane * _COLUMNS + j] = level
                    if trellis:
                        step = ((abs(np.int64(level)) + 1) >> 1) & 1
                        paths[lane] = after[np.uint64(2 * np.int64(paths[lane]) + step)]
            for lane in range(width):
                for j in range(columns):
                    out[group + lane, begin + j] = tile[lane * _COLUMNS + j]
    for lane in range(lanes):
        right &= states[lane] == _LEAST
    return right and word == words_end and escape == end
