"""Interleaved rANS, block by block: the 32 lanes of a step are independent, so that the CPU overlaps them.

A decoder looks up symbol, frequency and offset of a slot in one word. An encoder finds symbols by a binary
search of the levels and divides by a product with the reciprocal.
"""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip._core.rans_tables import cumulative, levels_in_order, most_bytes, symbol_of_slot
from gpuzip.loops._arrays import local
from gpuzip.loops._jit import jit

_TASK = 1 << 16  # values per task of a thread
_COLUMNS = 16  # that are decoded before their levels go to their rows: a line of the cache
_LANES, _LEAST = np.int64(32), np.uint32(1 << 16)
_states = local(32, np.uint32)
_trellis = local(32, np.uint8)
_tile = local(32 * _COLUMNS, np.int32)


def rans_encode(levels, block_rows, column_tables, freqs, values, next_state):
    N, C = levels.shape
    blocks, most = -(-N // block_rows), most_bytes(min(N, block_rows), C)
    buffer = torch.zeros((blocks, most), dtype=torch.uint8, device="cpu")
    lengths = torch.empty((blocks,), dtype=torch.int64, device="cpu")
    ordered, symbols, count = (part.contiguous().numpy() for part in levels_in_order(freqs, values))
    frequency = freqs.contiguous().numpy().reshape(-1)
    reciprocal = np.uint64(1 << 44) // frequency.clip(1).astype(np.uint64) + np.uint64(1)
    steps = (frequency, cumulative(freqs).contiguous().numpy().reshape(-1), reciprocal)
    given, tables = levels.contiguous().numpy(), column_tables.contiguous().numpy()
    after, out, sizes = next_state.contiguous().numpy().reshape(-1), buffer.numpy(), lengths.numpy()

    def some_blocks(start, stop):
        rows = min(block_rows, N)
        words, escapes = np.empty(rows * C, np.uint16), np.empty(rows * C, np.int32)
        entries = np.empty(32 * C, np.int32)
        for b in range(start, stop):
            mine = given[b * block_rows : (b + 1) * block_rows]
            sizes[b] = _encode(
                *(mine, tables, after, ordered.reshape(-1), symbols.reshape(-1), count, *steps),
                *(words, escapes, entries, out[b]),
            )

    map_blocks(some_blocks, blocks, _blocks_per_task(block_rows, C))
    return buffer, lengths


def rans_decode(stream, starts, n, block_rows, column_tables, freqs, values, next_state):
    C, blocks = len(column_tables), len(starts)
    levels = torch.empty((n, C), dtype=torch.int32, device="cpu")
    ok = torch.empty((blocks,), dtype=torch.bool, device="cpu")
    slots = _slots(freqs.contiguous())
    data, places = stream.contiguous().numpy(), starts.contiguous().numpy()
    model = (
        column_tables.contiguous().numpy(),
        slots,
        values.contiguous().numpy().reshape(-1),
        next_state.contiguous().numpy().reshape(-1),
    )
    out, right = levels.numpy(), ok.numpy()

    def some_blocks(start, stop):
        first, last = start * block_rows, min(stop * block_rows, n)
        _decode(data, places[start:stop], block_rows, *model, out[first:last], right[start:stop])

    map_blocks(some_blocks, blocks, _blocks_per_task(block_rows, C))
    return levels, ok


def _blocks_per_task(block_rows, C):
    return max(1, _TASK // max(1, block_rows * C))


def _slots(freqs):
    """Return symbol, offset << 8 and (frequency - 1) << 20 of every slot of every table, in one word."""
    symbol = symbol_of_slot(freqs).long()
    offset = torch.arange(4096, device="cpu") - cumulative(freqs).long().gather(1, symbol)
    word = symbol | offset << 8 | (freqs.long().gather(1, symbol) - 1) << 20
    return word.numpy().astype(np.uint32).reshape(-1)


@jit(
    "int64(int32[:, ::1], int32[::1], uint8[::1], int32[::1], uint8[::1], int32[::1], int32[::1], "
    "int32[::1], uint64[::1], uint16[::1], int32[::1], int32[::1], uint8[::1])"
)
def _encode(
    levels, tables, after, ordered, symbols, count, freqs, before, reciprocal, words, escapes, entries, out
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
        bad = min(bad, _find(levels, first, width, tables, after, ordered, symbols, count, freqs, entries))
        if bad < C:
            continue
        for j in range(C - 1, -1, -1):
            for lane in range(width - 1, -1, -1):
                entry = np.uint64(entries[j * 32 + lane])
                x, f = states[lane], np.uint32(freqs[entry])
                full = x >> np.uint32(20) >= f
                words[word - 1] = x
                word -= full
                x = x >> np.uint32(16) if full else x
                whole = np.uint32(np.uint64(x) * reciprocal[entry] >> np.uint64(44))
                states[lane] = (whole << np.uint32(12)) + (x - whole * f) + np.uint32(before[entry])
                if entry & np.uint64(255) == 0:
                    escape -= 1
                    escapes[escape] = levels[first + lane, j]
    if bad < C:
        return -1 - bad
    return _place(states, lanes, words, word, escapes, escape, out)


@jit(
    "int64(int32[:, ::1], int64, int64, int32[::1], uint8[::1], int32[::1], uint8[::1], int32[::1], "
    "int32[::1], int32[::1])",
    inner=True,
)
def _find(levels, first, width, tables, after, ordered, symbols, count, freqs, entries):
    """Write table * 256 + symbol of a group by column and lane; return the first bad column, or C."""
    C, trellis = levels.shape[1], len(after) > 2
    bad = C
    for lane in range(width):
        state = np.int64(0)
        for j in range(C):
            level = levels[first + lane, j]
            table = np.int64(tables[j])
            if trellis:
                table += state & 1
                state = np.int64(after[2 * state + (((abs(np.int64(level)) + 1) >> 1) & 1)])
            start = at = table * 256
            for half in (128, 64, 32, 16, 8, 4, 2, 1):
                at += half * (ordered[np.uint64(at + half - 1)] < level)
            known = (ordered[np.uint64(at)] == level) & (at - start < count[table])
            symbol = np.int64(symbols[np.uint64(at)]) * known
            entries[j * 32 + lane] = start + symbol
            if symbol == 0 and freqs[start] == 0:
                bad = min(bad, j)
    return bad


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


@jit("uint32(uint8[::1], int64)", inner=True)
def _get(data, at):
    low = np.uint32(data[at]) | np.uint32(data[at + 1]) << np.uint32(8)
    return low | np.uint32(data[at + 2]) << np.uint32(16) | np.uint32(data[at + 3]) << np.uint32(24)


@jit(
    "void(uint8[::1], int64[:, ::1], int64, int32[::1], uint32[::1], int32[::1], uint8[::1], "
    "int32[:, ::1], boolean[::1])"
)
def _decode(data, places, block_rows, tables, slots, values, after, out, right):
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
                    data, start, end - left, end, first, last, tables, slots, values, after, out
                )
        if not right[b]:
            for r in range(first, last):
                for j in range(out.shape[1]):
                    out[r, j] = 0


@jit(
    "boolean(uint8[::1], int64, int64, int64, int64, int64, int32[::1], uint32[::1], int32[::1], "
    "uint8[::1], int32[:, ::1])",
    inner=True,
)
def _decode_block(data, start, escape, end, first, last, tables, slots, values, after, out):
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
                    entry = slots[(own << np.uint64(12)) + np.uint64(x & np.uint32(4095))]
                    x = ((entry >> np.uint32(20)) + np.uint32(1)) * (x >> np.uint32(12)) + (
                        (entry >> np.uint32(8)) & np.uint32(4095)
                    )
                    low = x < _LEAST
                    if sure:
                        next_word = np.uint32(data[word]) | np.uint32(data[word + 1]) << np.uint32(8)
                        x = (x << np.uint32(16)) | next_word if low else x
                        word += 2 * low
                    elif low:
                        if word < words_end:
                            x = (x << np.uint32(16)) | (
                                np.uint32(data[word]) | np.uint32(data[word + 1]) << np.uint32(8)
                            )
                            word += 2
                        else:
                            return False
                    states[lane] = x
                    symbol = np.uint64(entry & np.uint32(255))
                    level = values[(own << np.uint64(8)) + symbol]
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
