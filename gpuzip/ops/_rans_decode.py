"""The decoder of interleaved rANS in plain numpy: all lanes of all blocks take a step together.

A step is some twenty calls on short arrays, whose cost is that of the calls: so each array has its place.
"""

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
    symbol_of_slot,
)

# Arrays of no dimension: a call on one takes half as long as on a number.
_SLOT, _SLOT_BITS, _WORD_BITS, _SMALL = (np.array(number) for number in (TOTAL - 1, 12, 16, LEAST))

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

# What a slot stands for, in one number: from bit 0 on what is added to the state; the parity of the level;
# table * 256 + symbol; the frequency.
_PARITY, _ENTRY, _FREQUENCY = 12, 13, 40
_PARITY_BIT, _UP_TO_FREQUENCY = np.array(1 << _PARITY), np.array(_FREQUENCY)
_ENTRIES = (1 << (_FREQUENCY - _ENTRY)) - 1


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
    model = _Model(column_tables, freqs, values, next_state)
    if not blocks:
        return torch.zeros((0, C), dtype=torch.int32, device="cpu"), torch.from_numpy(reader.right())
    levels = np.zeros((blocks, -(-block_rows // LANES) * LANES, C), np.int32)
    for first in range(0, block_rows, LANES):
        widths = np.clip(rows - first, 0, LANES)  # of all blocks but the last the same
        apart = blocks - 1 if widths[0] != widths[-1] else blocks
        for some in (slice(0, apart), slice(apart, blocks)):
            if some.start < some.stop and widths[some.start]:
                width = int(widths[some.start])
                found = reader.group(some, width, model)
                levels[some, first : first + width] = found.transpose(1, 2, 0)
    ok = reader.right()
    levels = levels[:, :block_rows]
    levels[~ok] = 0
    return torch.from_numpy(np.ascontiguousarray(levels).reshape(-1, C)[:n]), torch.from_numpy(ok)


class _Model:
    """slots: (T * 4096,), what each slot stands for. sides: (C, states), where the slots of tables begin.

    after: by 2^12 * parity + state, the next one.
    """

    def __init__(self, column_tables: Tensor, freqs: Tensor, values: Tensor, next_state: Tensor) -> None:
        symbols = symbol_of_slot(freqs).numpy().astype(np.int64)
        entries = symbols + 256 * np.arange(len(symbols))[:, None]
        self.levels = values.numpy().reshape(-1)
        frequency, before = (part.numpy().astype(np.int64).reshape(-1) for part in (freqs, cumulative(freqs)))
        packed = np.arange(TOTAL) - before[entries] | parity(self.levels)[entries] << _PARITY
        self.slots = (packed | entries << _ENTRY | frequency[entries] << _FREQUENCY).reshape(-1)
        states = next_state.numpy().astype(np.int64)
        self.trellis = len(states) > 1
        self.sides = TOTAL * (column_tables.numpy().astype(np.int64)[:, None] + (np.arange(len(states)) & 1))
        after = np.zeros((2, 1 << _PARITY), np.int64)
        after[:, : len(states)] = states.T
        self.after = after.reshape(-1)


def parity(levels: NDArray[np.int32]) -> Ints:
    """Return which of the two next states a level leads to."""
    return ((np.abs(levels.astype(np.int64)) + 1) >> 1) & 1


class _Reader:
    """The states, words and escapes of all blocks. What is read beyond their ends is noted."""

    def __init__(self, stream: NDArray[np.uint8], starts: Ints, lanes: Ints) -> None:
        body = HEAD_BYTES + STATE_BYTES * lanes
        self._ok = np.zeros(len(starts), np.bool_)
        self.states = np.full((len(starts), LANES), LEAST, np.int64)
        words, escapes = [np.zeros(0, "<u2")], [np.zeros(0, "<i4")]
        data = np.ascontiguousarray(stream).data
        counts = np.zeros((len(starts), 2), np.int64)
        for b, (first, last) in enumerate(starts.tolist()):
            if not 0 <= first <= first + body[b] <= last <= len(stream):
                continue
            count = int.from_bytes(data[first : first + HEAD_BYTES], "little")
            at = int(first + body[b])
            left = last - at - WORD_BYTES * count
            if left < 0 or left % ESCAPE_BYTES:
                continue
            self._ok[b] = True
            self.states[b, : lanes[b]] = np.frombuffer(data[first + HEAD_BYTES : at], "<u4")
            words.append(np.frombuffer(data[at : last - left], "<u2"))
            escapes.append(np.frombuffer(data[last - left : last], "<i4"))
            counts[b] = count, left // ESCAPE_BYTES
        self._words = np.concatenate([*words, np.zeros(1, "<u2")]).astype(np.int64)
        self._escapes = np.concatenate([*escapes, np.zeros(1, "<i4")])
        ends = counts.cumsum(0)
        (self._words_end, self._end), (self._word, self._escape) = ends.T, (ends - counts).T.copy()
        self._any_escapes = bool(counts[:, 1].any())

    def group(self, some: slice, width: int, model: _Model) -> NDArray[np.int32]:
        """Return the levels of the next group of rows of some blocks: (C, blocks, width)."""
        x = self.states[some, :width].copy()
        shape, C = x.shape, len(model.sides)
        before = np.repeat(self._word[some, None] - 1, width, 1)
        found = np.empty((C, *shape), np.int64)
        at, path, side, place, read = (np.zeros(shape, np.int64) for _ in range(5))
        low = np.empty(shape, np.bool_)
        last = place[:, -1:]
        changed: list[tuple[int, Bools, NDArray[np.int32]]] = []
        for j, sides in enumerate(model.sides):
            sides.take(path, out=side, mode="clip")
            np.bitwise_and(x, _SLOT, at)
            at += side
            packed = model.slots.take(at, out=found[j], mode="clip")
            x >>= _SLOT_BITS
            np.right_shift(packed, _UP_TO_FREQUENCY, read)
            x *= read
            np.bitwise_and(packed, _SLOT, read)
            x += read
            np.less(x, _SMALL, low)
            np.add.accumulate(low, 1, np.int64, place)
            place += before
            np.copyto(before, last)
            self._words.take(place, out=read, mode="clip")
            np.left_shift(x, _WORD_BITS, at)
            at |= read
            np.copyto(x, at, where=low)
            if self._any_escapes and (escaped := packed & (255 << _ENTRY) == 0).any():
                levels = self._escaped(some, escaped)
                changed.append((j, escaped, levels))
                packed[escaped] &= ~(1 << _PARITY)
                packed[escaped] |= parity(levels) << _PARITY
            if model.trellis:
                np.bitwise_and(packed, _PARITY_BIT, at)
                at += path
                model.after.take(at, out=path, mode="clip")
        self.states[some, :width], self._word[some] = x, before[:, 0] + 1
        entries = found >> _ENTRY & _ENTRIES
        if not self._any_escapes:
            self._ok[some] &= (entries & 255 != 0).all((0, 2))
        decoded: NDArray[np.int32] = model.levels[entries]
        for j, escaped, levels in changed:
            decoded[j][escaped] = levels
        return decoded

    def _escaped(self, some: slice, escaped: Bools) -> NDArray[np.int32]:
        """Return the next levels of the side lists, one for every True in order."""
        places = self._escape[some, None] + escaped.cumsum(1) - 1
        self._escape[some] += escaped.sum(1)
        found: NDArray[np.int32] = self._escapes.take(places, mode="clip")[escaped]
        return found

    def right(self) -> Bools:
        """Return whether each block's bytes were used up and its lanes are where coding started."""
        used = (self._word == self._words_end) & (self._escape == self._end)
        right: Bools = self._ok & used & (self.states == LEAST).all(1)
        return right
