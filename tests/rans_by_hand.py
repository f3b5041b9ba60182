"""A block of interleaved rANS decoded in plain Python, written from the description of the stream alone."""

from __future__ import annotations

import struct
from collections.abc import Sequence

Table = Sequence[int]


def decode_block(
    data: bytes,
    rows: int,
    column_tables: Sequence[int],
    freqs: Sequence[Table],
    values: Sequence[Table],
    next_state: Sequence[tuple[int, int]],
) -> list[list[int]]:
    """Rows of levels, or a ValueError if the bytes are not those of a block."""
    lanes = min(rows, 32)
    if len(data) < 4 + 4 * lanes:
        raise ValueError("too short")
    count, *states = struct.unpack_from(f"<{1 + lanes}I", data)
    body = 4 + 4 * lanes
    if body + 2 * count > len(data) or (len(data) - body - 2 * count) % 4:
        raise ValueError("words or escapes do not fit")
    words = iter(struct.unpack_from(f"<{count}H", data, body))
    escapes = iter(value for (value,) in struct.iter_unpack("<i", data[body + 2 * count :]))
    out = [[0] * len(column_tables) for _ in range(rows)]
    trellis = [0] * rows
    for first in range(0, rows, 32):
        for j, base in enumerate(column_tables):
            for row in range(first, min(first + 32, rows)):
                table = base + (trellis[row] & 1) if len(next_state) > 1 else base
                x = states[row % 32]
                slot, symbol, before = x & 4095, 0, 0
                while before + freqs[table][symbol] <= slot:
                    before += freqs[table][symbol]
                    symbol += 1
                x = freqs[table][symbol] * (x >> 12) + slot - before
                if x < 1 << 16:
                    x = x << 16 | _next(words)
                states[row % 32] = x
                level = values[table][symbol] if symbol else _next(escapes)
                out[row][j] = level
                trellis[row] = next_state[trellis[row]][((abs(level) + 1) >> 1) & 1]
    if any(x != 1 << 16 for x in states) or next(words, None) is not None or next(escapes, None) is not None:
        raise ValueError("something is left over")
    return out


def _next(numbers):
    for number in numbers:
        return number
    raise ValueError("nothing is left")
