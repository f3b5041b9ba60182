"""The encoder of interleaved rANS in plain numpy: all lanes of all blocks take a step together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpuzip._core.rans_tables import (
    LANES,
    LEAST,
    TOTAL,
    cumulative,
    levels_in_order,
    most_bytes,
    symbols_by_level,
)
from gpuzip.ops._rans_decode import Bools, Ints, parity

_NONE = np.int32(-1)  # no row
_FOUR = np.array(4)


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
        is_escape = (symbols >= 0) & (symbols & 255 == 0)
        unknown = is_escape & (freqs.numpy()[:, 0] == 0)[symbols >> 8]
        for b in range(blocks):
            if unknown[:, b].any():
                steps = unknown[:, b].any(1).nonzero()[0]
                lengths[b] = -1 - (steps % C).min()
                continue
            lanes = min(LANES, min(block_rows, N - b * block_rows))
            parts = [
                np.array([there[:, b].sum()], "<u4"),
                states[b, :lanes].astype("<u4"),
                words[:, b][there[:, b]].astype("<u2"),
                escaped[:, b][is_escape[:, b]].astype("<i4"),
            ]
            data = np.frombuffer(b"".join(part.tobytes() for part in parts), np.uint8)
            buffer[b, : len(data)], lengths[b] = data, len(data)
    return torch.from_numpy(buffer), torch.from_numpy(lengths)


def _entries(
    levels: Tensor, column_tables: Tensor, freqs: Tensor, values: Tensor, next_state: Tensor
) -> NDArray[np.int32]:
    """Return table * 256 + symbol of every value: (N, C)."""
    parts = levels_in_order(freqs, values)
    after, given = next_state.numpy(), np.ascontiguousarray(levels.numpy().T)
    states = np.zeros(given.shape, np.uint8)
    if len(after) > 1:
        turns = parity(given).astype(np.uint8)
        for j in range(len(given) - 1):
            states[j + 1] = after[states[j], turns[j]]
        states &= 1
    tables = column_tables.numpy().astype(np.int64)[:, None] + states
    direct, least = symbols_by_level(*parts)
    if span := direct.shape[1]:
        off = given.astype(np.int64) - least
        inside = (off >= 0) & (off < span)
        symbols = direct.numpy().reshape(-1)[tables * span + np.where(inside, off, 0)] * inside
    else:
        symbols = _searched(tables, given, *parts)
    found: NDArray[np.int32] = (tables * 256 + symbols).astype(np.int32)
    turned: NDArray[np.int32] = found.T
    return turned


def _searched(
    tables: Ints, levels: NDArray[np.int32], ordered: Tensor, symbols: Tensor, count: Tensor
) -> NDArray[np.uint8]:
    """Return the symbols of levels by a binary search in those of all tables, or 0."""
    own = np.arange(256) < count.numpy()[:, None]
    keys = (np.arange(len(own), dtype=np.int64)[:, None] << 33) + ordered.numpy()
    keys, known = np.append(keys[own], np.iinfo(np.int64).max), np.append(symbols.numpy()[own], np.uint8(0))
    wanted = (tables << 33) + levels
    at = np.searchsorted(keys, wanted)
    found: NDArray[np.uint8] = np.where(keys[at] == wanted, known[at], np.uint8(0))
    return found


def _by_step(values: NDArray[np.int32], block_rows: int) -> NDArray[np.int32]:
    """(N, C) -> (groups * C, blocks, LANES), -1 where there is no row."""
    N, C = values.shape
    blocks, groups = -(-N // block_rows), -(-block_rows // LANES)
    padded = np.full((blocks, groups * LANES, C), _NONE)
    whole = N // block_rows
    padded[:whole, :block_rows] = values[: whole * block_rows].reshape(whole, block_rows, C)
    padded[whole:, : N - whole * block_rows] = values[whole * block_rows :]
    steps = padded.reshape(blocks, groups, LANES, C).transpose(1, 3, 0, 2)
    result: NDArray[np.int32] = steps.reshape(groups * C, blocks, LANES)
    return result


def _coded(symbols: NDArray[np.int32], freqs: Tensor) -> tuple[Ints, NDArray[np.uint16], Bools]:
    """Return the first states of the lanes, the low word of each step, and whether it is in the stream.

    Where there is no row a symbol has all slots, which changes no state.
    """
    frequency = np.append(freqs.numpy().reshape(-1).astype(np.int64).clip(1), TOTAL)
    before = np.append(cumulative(freqs).numpy().reshape(-1), 0).astype(np.int64)
    others, most = TOTAL - frequency, frequency << 20
    states = np.full(symbols.shape[1:], LEAST, np.int64)
    words, there = np.zeros(symbols.shape, np.uint16), np.zeros(symbols.shape, np.bool_)
    shift, f, read = (np.zeros(states.shape, np.int64) for _ in range(3))
    for step in range(len(symbols) - 1, -1, -1):
        entry = symbols[step]
        most.take(entry, out=read, mode="wrap")
        full = np.greater_equal(states, read, there[step])
        words[step] = states
        np.left_shift(full, _FOUR, shift)
        states >>= shift
        frequency.take(entry, out=f, mode="wrap")
        np.floor_divide(states, f, shift)
        others.take(entry, out=f, mode="wrap")
        shift *= f
        states += shift
        before.take(entry, out=f, mode="wrap")
        states += f
    return states, words, there
