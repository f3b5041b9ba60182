"""Interleaved rANS: whole numbers in nearly as few bits as their tables of frequencies allow."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip._core.rans_tables import TOTAL, most_bytes
from gpuzip.errors import GpuzipError
from gpuzip.ops import _rans_decode, _rans_encode
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator


def _encode_shapes(
    levels: Tensor, block_rows: int, column_tables: Tensor, freqs: Tensor, values: Tensor, next_state: Tensor
) -> tuple[Tensor, Tensor]:
    N, C = levels.shape
    blocks = -(-N // block_rows)
    buffer = levels.new_empty((blocks, most_bytes(min(N, block_rows), C)), dtype=torch.uint8)
    return buffer, levels.new_empty((blocks,), dtype=torch.int64)


def _decode_shapes(
    stream: Tensor,
    starts: Tensor,
    n: int,
    block_rows: int,
    column_tables: Tensor,
    freqs: Tensor,
    values: Tensor,
    next_state: Tensor,
) -> tuple[Tensor, Tensor]:
    levels = stream.new_empty((n, len(column_tables)), dtype=torch.int32)
    return levels, stream.new_empty((len(starts),), dtype=torch.bool)


def _encode_samples(device: str) -> Iterator[tuple[Tensor, int, Tensor, Tensor, Tensor, Tensor]]:
    # rows, columns, rows of a block, tables, states of the trellis, symbols, share of escapes
    for N, C, block_rows, T, S, K, escapes in [
        (0, 3, 64, 2, 1, 5, 0.0),
        (3, 2, 2, 2, 2, 4, 0.1),
        (70, 5, 64, 3, 8, 9, 0.05),
        (33, 3, 33, 1, 1, 1, 0.0),  # one symbol of all slots: no word at all
        (1, 1, 1, 1, 1, 2, 1.0),
        (67, 3, 32, 4, 1, 256, 0.3),
        (40, 2, 100, 2, 256, 3, 0.0),
        (31, 4, 10, 2, 4, 2, 1.0),
    ]:
        g = generator(N + K)
        values = torch.randperm(511, generator=g)[:256].sub(255).int().expand(T, 256).contiguous()
        counts = (torch.rand(T, K, generator=g) ** 4 * 900).int() + 1
        counts[:, 0] *= escapes > 0
        if K == 1:
            counts[:] = 1
            values = values - values[:, :1]
        freqs = torch.zeros(T, 256, dtype=torch.int32)
        freqs[:, :K] = counts * TOTAL // counts.sum(1, keepdim=True).clamp_min(1)
        freqs[:, K - 1] += TOTAL - freqs.sum(1, dtype=torch.int32)
        if K == 1:  # symbol 0 has no level: it is symbol 1 that has all slots
            freqs = freqs.roll(1, 1)
            values = values.roll(1, 1)
        column_tables = torch.randint(0, T - (S > 1), (C,), generator=g, dtype=torch.int32)
        next_state = torch.randint(0, S, (S, 2), generator=g).to(torch.uint8)
        symbols = torch.randint(1, max(K, 2), (N, C), generator=g)
        levels = values[0][symbols]
        other = torch.randint(-(2**31), 2**31 - 1, (N, C), generator=g).int()
        levels = torch.where(torch.rand(N, C, generator=g) < escapes, other, levels)
        parts = (column_tables, freqs, values, next_state)
        moved = [part.to(device) for part in (levels, *parts)]
        yield moved[0], block_rows, moved[1], moved[2], moved[3], moved[4]


def _decode_samples(device: str) -> Iterator[tuple[Tensor, Tensor, int, int, Tensor, Tensor, Tensor, Tensor]]:
    for levels, block_rows, *model in _encode_samples("cpu"):
        buffer, lengths = _rans_encode.encode(levels, block_rows, *model)
        stream = torch.cat([buffer.new_zeros(1), *(row[:n] for row, n in zip(buffer, lengths, strict=True))])
        starts = 1 + _starts(lengths)
        for damaged in (False, True):
            if damaged and len(stream) > 9:
                stream = stream.clone()
                stream[len(stream) // 2] ^= 64
                starts = torch.cat([starts[:-1], starts[-1:] - torch.tensor([[0, 2]])])
            moved = [part.to(device) for part in (stream, starts, *model)]
            yield moved[0], moved[1], len(levels), block_rows, moved[2], moved[3], moved[4], moved[5]


def _starts(lengths: Tensor) -> Tensor:
    """Return the first byte of every block, and the byte after its last: (blocks, 2) int64."""
    ends = lengths.cumsum(0)
    return torch.stack([ends - lengths, ends], 1)


_encode = define_op(
    "rans_encode(Tensor levels, int block_rows, Tensor column_tables, Tensor freqs, Tensor values, "
    "Tensor next_state) -> (Tensor, Tensor)",
    reference=_rans_encode.encode,
    loops="gpuzip.loops.rans_encode:rans_encode",
    shapes=_encode_shapes,
    kernel="gpuzip.kernels.rans:rans_encode",
    samples=_encode_samples,
    agreement="exact",
)
_decode = define_op(
    "rans_decode(Tensor stream, Tensor starts, int n, int block_rows, Tensor column_tables, Tensor freqs, "
    "Tensor values, Tensor next_state) -> (Tensor, Tensor)",
    reference=_rans_decode.decode,
    loops="gpuzip.loops.rans_decode:rans_decode",
    shapes=_decode_shapes,
    kernel="gpuzip.kernels.rans:rans_decode",
    samples=_decode_samples,
    agreement="exact",
)


def rans_encode(
    levels: Tensor, block_rows: int, column_tables: Tensor, freqs: Tensor, values: Tensor, next_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Code levels in blocks of rows: (N, C) int32 -> stream (bytes,) uint8, lengths (blocks,) int64.

    block_rows: rows per block; the last may have fewer. column_tables (C,) int32: each column's table.
    freqs (T, 256) int32: frequencies of symbols, 4096 in all per table. values (T, 256) int32: the symbols'
    levels. next_state (S, 2) uint8: a trellis, or a single state. Every row starts in state 0. With more than
    one state the table is column_tables[j] + (state & 1), and after level t the state is
    next_state[state][((abs(t) + 1) >> 1) & 1].
    Symbol 0 is the escape: a level without a symbol stands in full in a side list. Where it has no frequency
    such a level is an error. Of several symbols with one level the first is taken.

    Block: number of words W as u32; a u32 state for each lane; W words as u16; levels of the escapes as i32.
    All are little-endian. Row r of a block is lane r % 32. Groups of 32 rows come in order, in a group its
    columns, in a column the lanes. Each lane is a rANS coder with states in [2**16, 2**32) and words of 16
    bits, which are read in the order of decoding. A lane ends at state 2**16.
    Source: Duda, "Asymmetric numeral systems", 2013; Giesen, "Interleaved entropy coders", 2014.
    """
    _check_model("rans_encode", block_rows, column_tables, freqs, values, next_state)
    buffer, lengths = _encode(levels, block_rows, column_tables, freqs, values, next_state)
    sizes = lengths.tolist()
    if sizes and min(sizes) < 0:
        column = -1 - max(size for size in sizes if size < 0)
        raise GpuzipError(
            f"rans_encode: levels of column {column} must have symbols, as its table has no escape; one has "
            "none. Give symbol 0 of that table a frequency."
        )
    rows = [row[:size] for row, size in zip(buffer, sizes, strict=True)]
    return torch.cat(rows) if rows else buffer.view(-1), lengths


def rans_decode(
    stream: Tensor,
    starts: Tensor,
    n: int,
    block_rows: int,
    column_tables: Tensor,
    freqs: Tensor,
    values: Tensor,
    next_state: Tensor,
) -> tuple[Tensor, Tensor]:
    """Undo `rans_encode` for some blocks: (bytes,) uint8 -> levels (n, C) int32, ok (blocks,) bool.

    starts (blocks, 2) int64: the first byte of each block, and the byte after its last. n: their rows in all;
    each block has block_rows of them but the last, which has the rest. ok is False where the bytes are not
    those of a block: their length, words, escapes or last states do not add up. The levels of such a block
    are 0.
    """
    _check_model("rans_decode", block_rows, column_tables, freqs, values, next_state)
    blocks = -(-n // block_rows)
    if starts.shape != (blocks, 2):
        raise GpuzipError(
            f"rans_decode: starts must be ({blocks}, 2) for {n} rows; got {tuple(starts.shape)}. "
            "Give the first and the last byte of each block."
        )
    levels, ok = _decode(stream, starts, n, block_rows, column_tables, freqs, values, next_state)
    return levels, ok


def _check_model(
    who: str, block_rows: int, column_tables: Tensor, freqs: Tensor, values: Tensor, next_state: Tensor
) -> None:
    """Refuse tables that a coder would read past."""
    T, S = len(freqs), len(next_state)
    whole = freqs.shape == values.shape == (T, 256) and next_state.shape == (S, 2) and 1 <= S <= 256
    if not whole or block_rows < 1:
        raise GpuzipError(
            f"{who}: freqs and values must be (T, 256), next_state (S, 2) and block_rows 1 or more; got "
            f"{tuple(freqs.shape)}, {tuple(values.shape)}, {tuple(next_state.shape)} and {block_rows}."
        )
    if bool((freqs < 0).any()) or bool((freqs.sum(1) != TOTAL).any()):
        raise GpuzipError(
            f"{who}: the freqs of every table must be 0 or more and sum to {TOTAL}; they do not."
        )
    last = T - 1 - (S > 1)
    if len(column_tables) and not 0 <= int(column_tables.min()) <= int(column_tables.max()) <= last:
        raise GpuzipError(f"{who}: column_tables must be in 0 .. {last}; they are not.")
    if int(next_state.max()) >= S:
        raise GpuzipError(f"{who}: next_state must be below {S}, the number of states; it is not.")
