"""Interleaved rANS: whole numbers to bytes and back, 32 lanes per block.

Decode, for each column of 32 rows: slot = x & 4095, x = freq * (x >> 12) + slot - before, and x = x << 16 |
word where x < 2**16. The lanes that need a word take the next ones in order: a cumulative sum over lanes
gives their places. Encode runs the same steps last to first, with x = (x // freq << 12) + x % freq + before.
Layouts: levels (N, C) int32, blocks of `block_rows` rows; stream bytes: per block u32 words, u32 states, u16
words, i32 escapes, at any byte. Slots (T, 4096) int32: symbol | (slot - before) << 8 | (freq - 1) << 20.
Bytes moved: the stream and N*C*4; to encode, N*C*12 more of entries between the kernels, and tails of zeros.
Source: Giesen, "Interleaved entropy coders", 2014; Weissenberger and Schmidt 2019 decode on GPUs.
Ladder: 1. (here) one warp per block, tables from L1 and L2. L2 joins what is written 4 bytes at a time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_LANES = 32
_ROWS = 128  # rows per program that finds symbols
_BYTES = 1024  # bytes per program that puts a block together


@triton.jit
def _number(ptr, at, mask, BYTES: tl.constexpr):
    """Return the little-endian number of a few bytes, 0 where masked."""
    number = tl.load(ptr + at, mask=mask, other=0).to(tl.uint32)
    for i in tl.static_range(1, BYTES):
        number |= tl.load(ptr + at + i, mask=mask, other=0).to(tl.uint32) << (8 * i)
    return number


@triton.jit
def _parity(level):
    """Return which of two next states a level leads to."""
    return (tl.where(level < 0, 1 - level, level + 1) >> 1) & 1


@triton.jit(do_not_specialize=["length", "n", "block_rows", "C"])
def _rans_decode(
    stream_ptr,
    starts_ptr,
    tables_ptr,
    slots_ptr,
    values_ptr,
    after_ptr,
    out_ptr,
    right_ptr,
    length,
    n,
    block_rows,
    C,
    TRELLIS: tl.constexpr,
    LANES: tl.constexpr,
):
    block, lane = tl.program_id(0).to(tl.int64), tl.arange(0, LANES)
    start, end = tl.load(starts_ptr + 2 * block), tl.load(starts_ptr + 2 * block + 1)
    first = block * block_rows
    rows = tl.minimum(n - first, block_rows)
    lanes = tl.minimum(rows, LANES)
    body = 4 + 4 * lanes
    fits = (start >= 0) & (end >= start) & (end <= length) & (end - start >= body)
    words = _number(stream_ptr, start, fits, 4).to(tl.int64)
    left = end - start - body - 2 * words
    fits = fits & (left >= 0) & (left % 4 == 0)
    begun = lane < tl.where(fits, lanes, 0)
    x = tl.where(begun, _number(stream_ptr, start + 4 + 4 * lane, begun, 4), 65536)
    word = tl.where(fits, start + body, 0)
    words_end = tl.where(fits, end - left, 0)
    escape, escapes_end = words_end, tl.where(fits, end, 0)
    wrong = tl.zeros((LANES,), tl.int32)
    for group in range(0, rows, LANES):
        there = group + lane < rows
        row_ptr = out_ptr + (first + group + lane) * C
        path = tl.zeros((LANES,), tl.int32)
        for j in range(C):
            table = tl.load(tables_ptr + j) + tl.zeros((LANES,), tl.int32)
            if TRELLIS:
                table += path & 1
            entry = tl.load(slots_ptr + table * 4096 + (x & 4095).to(tl.int32), mask=there, other=0)
            entry = entry.to(tl.uint32, bitcast=True)
            x = tl.where(there, ((entry >> 20) + 1) * (x >> 12) + ((entry >> 8) & 4095), x)
            low = there & (x < 65536)
            taken = tl.cumsum(low.to(tl.int32), 0)
            place = word + 2 * (taken - 1)
            inside = low & (place < words_end)
            x = tl.where(low, (x << 16) | _number(stream_ptr, place, inside, 2), x)
            word += 2 * tl.sum(low.to(tl.int32), 0)
            wrong |= (low != inside).to(tl.int32)
            symbol = (entry & 255).to(tl.int32)
            level = tl.load(values_ptr + table * 256 + symbol, mask=there, other=0)
            escaped = there & (symbol == 0)
            count = tl.sum(escaped.to(tl.int32), 0)
            if count > 0:
                place = escape + 4 * (tl.cumsum(escaped.to(tl.int32), 0) - 1)
                inside = escaped & (place < escapes_end)
                found = _number(stream_ptr, place, inside, 4).to(tl.int32, bitcast=True)
                level = tl.where(escaped, found, level)
                wrong |= (escaped != inside).to(tl.int32)
                escape += 4 * count
            if TRELLIS:
                path = tl.load(after_ptr + 2 * path + _parity(level), mask=there, other=0).to(tl.int32)
            tl.store(row_ptr + j, level, mask=there)
    wrong |= (x != 65536).to(tl.int32)
    right = fits & (tl.max(wrong, 0) == 0) & (word == words_end) & (escape == escapes_end)
    tl.store(right_ptr + block, right.to(tl.int8))
    if not right:
        for group in range(0, rows, LANES):
            for j in range(C):
                place = (first + group + lane) * C + j
                tl.store(out_ptr + place, tl.zeros((LANES,), tl.int32), mask=group + lane < rows)


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
    """Launch: bytes uint8, starts (blocks, 2) int64 -> levels (n, C) int32, ok (blocks,) bool."""
    C, blocks = len(column_tables), len(starts)
    levels = torch.empty((n, C), dtype=torch.int32, device=stream.device)
    right = torch.empty((blocks,), dtype=torch.int8, device=stream.device)
    if blocks:
        _rans_decode[(blocks,)](
            stream.contiguous(),
            starts.contiguous(),
            column_tables.contiguous(),
            _slots(freqs),
            values.contiguous(),
            next_state.contiguous(),
            levels,
            right,
            stream.numel(),
            n,
            block_rows,
            C,
            TRELLIS=len(next_state) > 1,
            LANES=_LANES,
            num_warps=1,
            enable_fp_fusion=False,
        )
    return levels, right.bool()


def _slots(freqs: Tensor) -> Tensor:
    """Return symbol, offset << 8 and (frequency - 1) << 20 of every slot of every table, in one word."""
    ends = freqs.long().cumsum(1)
    slots = torch.arange(4096, device=freqs.device).expand(len(freqs), 4096).contiguous()
    symbol = torch.searchsorted(ends, slots, right=True).clamp_max(255)
    offset = slots - (ends - freqs).gather(1, symbol)
    frequency = freqs.long().gather(1, symbol) - 1
    return (symbol | offset << 8 | (frequency - (frequency >> 11 << 12)) << 20).int()  # its 32 bits


@triton.jit(do_not_specialize=["N", "block_rows", "C", "groups"])
def _find_symbols(
    levels_ptr,
    tables_ptr,
    after_ptr,
    ordered_ptr,
    symbols_ptr,
    count_ptr,
    freqs_ptr,
    entries_ptr,
    bad_ptr,
    N,
    block_rows,
    C,
    groups,
    TRELLIS: tl.constexpr,
    BR: tl.constexpr,
    LANES: tl.constexpr,
):
    """Write table * 256 + symbol of every value by step and lane, and each row's first column without one."""
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    there = row < N
    block, own = row // block_rows, row % block_rows
    into = ((block * groups + own // LANES) * C) * LANES + own % LANES
    path, bad = tl.zeros((BR,), tl.int32), tl.full((BR,), 2147483647, tl.int32)
    for j in range(C):
        level = tl.load(levels_ptr + row * C + j, mask=there, other=0)
        table = tl.load(tables_ptr + j) + tl.zeros((BR,), tl.int32)
        if TRELLIS:
            table += path & 1
            path = tl.load(after_ptr + 2 * path + _parity(level), mask=there, other=0).to(tl.int32)
        at = table * 256
        for step in tl.static_range(8):
            below = tl.load(ordered_ptr + at + ((128 >> step) - 1), mask=there, other=0) < level
            at += tl.where(below, 128 >> step, 0)
        same = tl.load(ordered_ptr + at, mask=there, other=0) == level
        known = same & (at - table * 256 < tl.load(count_ptr + table, mask=there, other=0))
        symbol = tl.load(symbols_ptr + at, mask=there & known, other=0).to(tl.int32)
        tl.store(entries_ptr + into + j * LANES, table * 256 + symbol, mask=there)
        refused = (symbol == 0) & (tl.load(freqs_ptr + table * 256, mask=there, other=1) == 0)
        bad = tl.where(refused & (j < bad), j, bad)
    tl.store(bad_ptr + row, bad, mask=there)


@triton.jit(do_not_specialize=["N", "block_rows", "C", "groups", "most"])
def _rans_encode(
    levels_ptr,
    entries_ptr,
    bad_ptr,
    freqs_ptr,
    before_ptr,
    words_ptr,
    escapes_ptr,
    counts_ptr,
    lengths_ptr,
    out_ptr,
    N,
    block_rows,
    C,
    groups,
    size,
    most,
    LANES: tl.constexpr,
):
    """Write states, and words and escapes to the ends of their rows: steps run last to first."""
    block, lane = tl.program_id(0).to(tl.int64), tl.arange(0, LANES)
    first = block * block_rows
    rows = tl.minimum(N - first, block_rows)
    lanes = tl.minimum(rows, LANES)
    bad = tl.full((LANES,), 2147483647, tl.int32)
    for group in range(0, rows, LANES):
        there = group + lane < rows
        bad = tl.minimum(bad, tl.load(bad_ptr + first + group + lane, mask=there, other=2147483647))
    refused = tl.min(bad, 0)
    if refused < C:
        tl.store(lengths_ptr + block, (-1 - refused).to(tl.int64))
        tl.store(counts_ptr + 2 * block, 0)
        tl.store(counts_ptr + 2 * block + 1, 0)
    else:
        x = tl.full((LANES,), 65536, tl.uint32)
        word, escape = (block + 1) * size, (block + 1) * size
        for back in range((rows + LANES - 1) // LANES):
            group = (rows + LANES - 1) // LANES - 1 - back
            there = group * LANES + lane < rows
            for back_j in range(C):
                j = C - 1 - back_j
                place = ((block * groups + group) * C + j) * LANES + lane
                entry = tl.load(entries_ptr + place, mask=there, other=0)
                f = tl.maximum(tl.load(freqs_ptr + entry, mask=there, other=1), 1).to(tl.uint32)
                full = there & ((x >> 20) >= f)
                taken = tl.cumsum(full.to(tl.int32), 0)
                word -= tl.sum(full.to(tl.int32), 0)
                tl.store(words_ptr + word + taken - 1, (x & 65535).to(tl.int16), mask=full)
                x = tl.where(full, x >> 16, x)
                whole = x // f
                before = tl.load(before_ptr + entry, mask=there, other=0).to(tl.uint32)
                x = tl.where(there, (whole << 12) + (x - whole * f) + before, x)
                escaped = there & ((entry & 255) == 0)
                count = tl.sum(escaped.to(tl.int32), 0)
                if count > 0:
                    escape -= count
                    row = first + group * LANES + lane
                    level = tl.load(levels_ptr + row * C + j, mask=escaped, other=0)
                    into = escape + tl.cumsum(escaped.to(tl.int32), 0) - 1
                    tl.store(escapes_ptr + into, level, mask=escaped)
        of_words, of_escapes = (block + 1) * size - word, (block + 1) * size - escape
        tl.store(counts_ptr + 2 * block, of_words)
        tl.store(counts_ptr + 2 * block + 1, of_escapes)
        tl.store(lengths_ptr + block, 4 + 4 * lanes + 2 * of_words + 4 * of_escapes)
        to_ptr = out_ptr + block * most
        for i in tl.static_range(4):
            tl.store(to_ptr + i, ((of_words >> (8 * i)) & 255).to(tl.uint8))
            tl.store(to_ptr + 4 + 4 * lane + i, ((x >> (8 * i)) & 255).to(tl.uint8), mask=lane < lanes)


@triton.jit(do_not_specialize=["N", "block_rows", "size", "most"])
def _place(
    words_ptr,
    escapes_ptr,
    counts_ptr,
    out_ptr,
    N,
    block_rows,
    size,
    most,
    BB: tl.constexpr,
    LANES: tl.constexpr,
):
    """Copy words and escapes of a block from the ends of their rows to their places."""
    block = tl.program_id(0).to(tl.int64)
    lanes = tl.minimum(tl.minimum(N - block * block_rows, block_rows), LANES)
    words = 2 * tl.load(counts_ptr + 2 * block)
    escapes = 4 * tl.load(counts_ptr + 2 * block + 1)
    byte = tl.program_id(1).to(tl.int64) * BB + tl.arange(0, BB)
    of_words = byte < words
    word = tl.load(words_ptr + (2 * (block + 1) * size - words + byte) // 2, mask=of_words, other=0).to(
        tl.int32
    )
    at = byte - words
    of_escapes = (at >= 0) & (at < escapes)
    level = tl.load(escapes_ptr + (4 * (block + 1) * size - escapes + at) // 4, mask=of_escapes, other=0)
    value = tl.where(of_words, word >> (8 * (byte % 2)).to(tl.int32), level >> (8 * (at % 4)).to(tl.int32))
    to_ptr = out_ptr + block * most + 4 + 4 * lanes
    tl.store(to_ptr + byte, (value & 255).to(tl.uint8), mask=of_words | of_escapes)


def rans_encode(
    levels: Tensor, block_rows: int, column_tables: Tensor, freqs: Tensor, values: Tensor, next_state: Tensor
) -> tuple[Tensor, Tensor]:
    """Launch: levels (N, C) int32 -> buffer (blocks, capacity) uint8, lengths (blocks,) int64."""
    N, C = levels.shape
    device, blocks, most_rows = levels.device, triton.cdiv(N, block_rows), min(N, block_rows)
    size, groups = most_rows * C, triton.cdiv(most_rows, _LANES)
    most = 4 + 4 * min(most_rows, _LANES) + 6 * size
    buffer = torch.zeros((blocks, most), dtype=torch.uint8, device=device)
    lengths = torch.empty((blocks,), dtype=torch.int64, device=device)
    if blocks == 0:
        return buffer, lengths
    levels, freqs, after = levels.contiguous(), freqs.contiguous(), next_state.contiguous()
    ordered, symbols, count = _levels_in_order(freqs, values)
    entries = torch.empty((blocks, groups * C, _LANES), dtype=torch.int32, device=device)
    bad = torch.empty((N,), dtype=torch.int32, device=device)
    _find_symbols[(triton.cdiv(N, _ROWS),)](
        *(levels, column_tables.contiguous(), after, ordered, symbols, count, freqs, entries, bad),
        *(N, block_rows, C, groups),
        TRELLIS=len(after) > 1,
        BR=_ROWS,
        LANES=_LANES,
        num_warps=4,
        enable_fp_fusion=False,
    )
    words = torch.empty((blocks, size), dtype=torch.int16, device=device)
    escapes = torch.empty((blocks, size), dtype=torch.int32, device=device)
    counts = torch.empty((blocks, 2), dtype=torch.int64, device=device)
    before = (freqs.long().cumsum(1) - freqs).int()
    _rans_encode[(blocks,)](
        *(levels, entries, bad, freqs, before, words, escapes, counts, lengths, buffer),
        *(N, block_rows, C, groups, size, most),
        LANES=_LANES,
        num_warps=1,
        enable_fp_fusion=False,
    )
    _place[(blocks, triton.cdiv(6 * size, _BYTES))](
        *(words, escapes, counts, buffer, N, block_rows, size, most),
        BB=_BYTES,
        LANES=_LANES,
        num_warps=4,
        enable_fp_fusion=False,
    )
    return buffer, lengths


def _levels_in_order(freqs: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the levels of a table ascending, (T, 256) int32, their symbols uint8, and their number int32."""
    there = freqs > 0
    there[:, 0] = False
    ordered, symbols = torch.sort(torch.where(there, values.long(), 1 << 31), dim=1, stable=True)
    return ordered.clamp_max((1 << 31) - 1).int(), symbols.to(torch.uint8), there.sum(1).int()
