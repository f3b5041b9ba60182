"""Interleaved rANS in plain numpy: all lanes of all blocks take a step together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpuzip._core.rans_tables import (
    ESCAPE_BYTES,
    HEAD_BYTES,
    LANES,
    LEAST,
    STATE_BYTES,
    TOTAL,
    WORD_BYTES,
    cumulative,
    levels_in_order,
    most_bytes,
    symbol_of_slot,
)

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def encode(
    levels: Tensor, block_rows: int, column_tables: Tensor, freqs: Tensor, values: Tensor, next_state: Tensor
) -> tuple[Tensor, Tensor]:
    N, C = levels.shape
    blocks = -(-N // block_rows)
    buffer = np.zeros((blocks, most_bytes(min(N, block_rows), C)), np.uint8)
    lengths = np.zeros(blocks, np.int64)
    if blocks:
        entries = _entries(levels, column_tables, freqs, values, next_state)
        symbols, escaped = _by_step(entries, block_rows), _by_step(levels.numpy(), block_rows)
        states, words, there = _coded(symbols, freqs)
        for b in range(blocks):
            mine = symbols[b]
            unknown = (mine >= 0) & (mine % 256 == 0) & (freqs.numpy().reshape(-1)[mine] == 0)
            if unknown.any():
                steps = unknown.any(1).nonzero()[0]
                lengths[b] = -1 - (steps % C).min()
                continue
            lanes = min(LANES, min(block_rows, N - b * block_rows))
            is_escape = (mine >= 0) & (mine % 256 == 0)
            parts = [
                np.array([there[b].sum()], "<u4"),
                states[b, :lanes].astype("<u4"),
                words[b][there[b]].astype("<u2"),
                escaped[b][is_escape].astype("<i4"),
            ]
            data = np.frombuffer(b"".join(part.tobytes() for part in parts), np.uint8)
            buffer[b, : len(data)], lengths[b] = data, len(data)
    return torch.from_numpy(buffer), torch.from_numpy(lengths)


def _entries(
    levels: Tensor, column_tables: Tensor, freqs: Tensor, values: Tensor, next_state: Tensor
) -> NDArray[np.int32]:
    """Return table * 256 + symbol of every value: (N, C)."""
    ordered, symbols, count = (part.numpy() for part in levels_in_order(freqs, values))
    tables, after, given = column_tables.numpy(), next_state.numpy(), levels.numpy()
    own = np.arange(256) < count[:, None]
    keys = (np.arange(len(freqs), dtype=np.int64)[:, None] << 33) + ordered
    keys, known = np.append(keys[own], np.iinfo(np.int64).max), np.append(symbols[own], 0)
    state = np.zeros(len(given), np.uint8)
    found = np.zeros(given.shape, np.int32)
    for j, first in enumerate(tables):
        table = (
            first + (state & 1).astype(np.int64) if len(after) > 1 else np.full(len(given), first, np.int64)
        )
        wanted = (table << 33) + given[:, j]
        at = np.searchsorted(keys, wanted)
        found[:, j] = table * 256 + np.where(keys[at] == wanted, known[at], 0)
        state = after[state, _parity(given[:, j])]
    return found


def _parity(levels: NDArray[np.int32]) -> Ints:
    """Return which of the two next states a level leads to."""
    return ((np.abs(levels.astype(np.int64)) + 1) >> 1) & 1


def _by_step(values: NDArray[np.int32], block_rows: int) -> NDArray[np.int32]:
    """(N, C) -> (blocks, groups * C, LANES), -1 where there is no row."""
    N, C = values.shape
    blocks, groups = -(-N // block_rows), -(-block_rows // LANES)
    padded = np.full((blocks, groups * LANES, C), -1, np.int32)
    whole = N // block_rows
    padded[:whole, :block_rows] = values[: whole * block_rows].reshape(whole, block_rows, C)
    padded[whole:, : N - whole * block_rows] = values[whole * block_rows :]
    steps = padded.reshape(blocks, groups, LANES, C).transpose(0, 1, 3, 2)
    result: NDArray[np.int32] = steps.reshape(blocks, groups * C, LANES)
    return result


def _coded(symbols: NDArray[np.int32], freqs: Tensor) -> tuple[Ints, NDArray[np.uint16], Bools]:
    """Return the first states of the lanes, the low word of each step, and whether it is in the stream."""
    frequency = freqs.numpy().reshape(-1).astype(np.int64).clip(1)
    before = cumulative(freqs).numpy().reshape(-1)
    states = np.full((len(symbols), LANES), LEAST, np.int64)
    words, there = np.zeros(symbols.shape, np.uint16), np.zeros(symbols.shape, np.bool_)
    for step in range(symbols.shape[1] - 1, -1, -1):
        entry = symbols[:, step]
        f, is_row = frequency[entry], entry >= 0
        full = is_row & (states >= f << 20)
        words[:, step], there[:, step] = states & 0xFFFF, full
        states = np.where(full, states >> 16, states)
        whole, rest = np.divmod(states, f)
        states = np.where(is_row, whole * TOTAL + rest + before[entry], states)
    return states, words, there


def decode(
    stream: Tensor,
    starts: Tensor,
    n: int,
    block_rows: int,
    column_tables: Tensor,
    freqs: Tensor,
    values: Tensor,
    next_state: Tensor,
) -> tuple[Tensor, Tensor]:
    C, blocks = len(column_tables), len(starts)
    rows = np.clip(n - np.arange(blocks) * block_rows, 0, block_rows)
    reader = _Reader(stream.numpy(), starts.numpy(), np.minimum(rows, LANES))
    symbols, level = symbol_of_slot(freqs).int().numpy().reshape(-1), values.numpy().reshape(-1)
    frequency, before = freqs.numpy().astype(np.int64).reshape(-1), cumulative(freqs).numpy().reshape(-1)
    groups = -(-block_rows // LANES) if blocks else 0
    out = np.zeros((groups, C, blocks, LANES), np.int32)
    after, trellis = next_state.numpy(), len(next_state) > 1
    for group in range(groups):
        there = np.arange(LANES) < (rows - group * LANES)[:, None]
        state = np.zeros(there.shape, np.uint8)
        for j, table in enumerate(column_tables.tolist()):
            own = table + (state & 1).astype(np.int64) if trellis else table
            x = reader.states
            slot = x & (TOTAL - 1)
            entry = own * 256 + symbols[own * TOTAL + slot]
            x = frequency[entry] * (x >> 12) + slot - before[entry]
            reader.refill(np.where(there, x, reader.states), there)
            decoded = np.where(there, level[entry], 0)
            escaped = there & (entry & 255 == 0)
            if escaped.any():
                decoded[escaped] = reader.escapes(escaped)
            if trellis:
                state = after[state, _parity(decoded)]
            out[group, j] = decoded
    ok = reader.right()
    out = out.transpose(2, 0, 3, 1).reshape(blocks, groups * LANES, C)[:, :block_rows]
    out[~ok] = 0
    return torch.from_numpy(out.reshape(-1, C)[:n].copy()), torch.from_numpy(ok)


class _Reader:
    """The states, words and escapes of all blocks; what is not there reads as 0 and is noted."""

    def __init__(self, stream: NDArray[np.uint8], starts: Ints, lanes: Ints) -> None:
        self._bytes = stream if len(stream) >= ESCAPE_BYTES else np.zeros(ESCAPE_BYTES, np.uint8)
        first, last = starts[:, 0], starts[:, 1]
        body = HEAD_BYTES + STATE_BYTES * lanes
        self._ok = (first >= 0) & (last >= first) & (last <= len(stream)) & (last - body >= first)
        count = np.where(self._ok, self._little(np.where(self._ok, first, 0), HEAD_BYTES), 0)
        left = last - body - first - WORD_BYTES * count
        self._ok &= (left >= 0) & (left % ESCAPE_BYTES == 0)
        self._word = np.where(self._ok, first + body, 0)
        self._escape = np.where(self._ok, first + body + WORD_BYTES * count, 0)
        self._words_end, self._end = self._escape.copy(), np.where(self._ok, last, 0)
        places = first[:, None] + HEAD_BYTES + STATE_BYTES * np.arange(LANES)
        there = self._ok[:, None] & (np.arange(LANES) < lanes[:, None])
        self.states = np.where(there, self._little(np.where(there, places, 0), STATE_BYTES), LEAST)

    def _little(self, at: Ints, size: int) -> Ints:
        """Return the unsigned little-endian numbers of `size` bytes at these places, which are clamped."""
        at = np.clip(at, 0, len(self._bytes) - size)
        read = self._bytes[at].astype(np.int64)
        for i in range(1, size):
            read |= self._bytes[at + i].astype(np.int64) << (8 * i)
        return read

    def refill(self, states: Ints, there: Bools) -> None:
        """Take these states, each with a word below it where it is too small and the lane has a row."""
        low = there & (states < LEAST)
        taken = low.cumsum(1)
        places = self._word[:, None] + WORD_BYTES * (taken - 1)
        inside = low & (places < self._words_end[:, None])
        word = np.where(inside, self._little(places, WORD_BYTES), 0)
        self._ok &= (inside == low).all(1)
        self.states = np.where(low, states << 16 | word, states)
        self._word += WORD_BYTES * taken[:, -1]

    def escapes(self, escaped: Bools) -> NDArray[np.int32]:
        """Return the next levels of the side lists, one for every True in order."""
        places = self._escape[:, None] + ESCAPE_BYTES * (escaped.cumsum(1) - 1)
        inside = escaped & (places < self._end[:, None])
        read = np.where(inside, self._little(places, ESCAPE_BYTES), 0)
        self._ok &= (inside == escaped).all(1)
        self._escape += ESCAPE_BYTES * escaped.sum(1)
        result: NDArray[np.int32] = read.astype(np.uint32).view(np.int32)[escaped]
        return result

    def right(self) -> Bools:
        """Return whether each block's bytes were used up and its lanes are where coding started."""
        used = (self._word == self._words_end) & (self._escape == self._end)
        right: Bools = self._ok & used & (self.states == LEAST).all(1)
        return right
