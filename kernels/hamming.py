"""Hamming distances: bits of packed rows that differ from those of queries, in a scan and for chosen rows.

distance[q, n] = popcount(query[q] xor code[n]), int32, exact. hamming_scan keeps the least of each `group`
rows; masked rows, rows past N and ids outside [0, N) count as 2**31 - 1.
Layouts: queries (Q, B) uint8, codes (N, B) uint8 of any B, read as 32-bit words where B is a multiple of 4,
mask (N,) bool or None, ids (Q, R) int64 -> hamming_scan (Q, ceil(N/group)), hamming_gather (Q, R).

Few queries, _scan_popcount: xor and a population count, written with shifts, which LLVM turns into POPC or
v_bcnt. BQ queries share the words that a program read.
Many queries, _scan_dot: on int8 tensor cores. byte & 2**s is the int8 value 2**s of a bit that is set (-128
for s = 7), and the query has w[s] = -2**(7-s) (1 for s = 7) where its own bit is set, else 0: each bit set in
both adds -128. So acc = -128 * popcount(query & code), and as popcount(a xor b) = popcount(a) + popcount(b) -
2 popcount(a & b),
    distance = popcount(query) + popcount(code) + acc / 64.
Only ANDs unpack the bits, four a 32-bit instruction. The sum over k runs in any order, so a chunk of CB bytes
is laid out as eight planes of CB int8, which stay the contiguous bytes that were loaded: as one operand of
8*CB (`together`; IGMMA behind 16-byte stores on sm_90), or one after the other as eight operands of CB (no
byte-wise stores on sm_100). acc and 64 times a distance are within 2**29 for B below 2**19.
Bytes moved: hamming_scan N*B in (again, from L2, for every BQ queries), Q*ceil(N/group)*4 out; hamming_gather
Q*R*(B + 12).
Source: popcount as in Warren, "Hacker's Delight", 5-1.
Ladder: 1. a word at a time, a lane a row: strided 4-byte loads. 2. chunks of 16 bytes a lane (here). 3. +1/-1
bits on tensor cores, which need a shift for the eighth plane, and int8 shifts split every word into bytes.
4. AND only (here); planes joined bit by bit cost a byte permutation and do not compile for sm_100 with triton
3.9, planes kept whole do.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import compile_target, launch_or

_FEW = 10  # queries up to which counting costs less than a tile of 64 queries on tensor cores


class PopcountTile(NamedTuple):
    """Queries that share what a program reads, and rows at a time."""

    BQ: int
    BN: int


class DotTile(NamedTuple):
    """Queries and rows a program, bytes of a row a step, planes in one operand or eight, warps."""

    BQ: int
    BN: int
    CB: int
    together: bool
    num_warps: int


def _popcount_tile(Q: int, whole_words: bool) -> PopcountTile:
    """Up to eight queries share what is read, by two rows a thread where rows are whole words."""
    return PopcountTile(min(triton.next_power_of_2(Q), 8), 256 if whole_words else 128)


def _tile(Q: int, B: int, whole_words: bool, target: str) -> PopcountTile | DotTile:
    """Few queries, or rows that are not whole words: counting. Else the widest tile that spills nowhere."""
    if Q <= _FEW or not whole_words:
        return _popcount_tile(Q, whole_words)
    if target.startswith("cuda 10"):
        return DotTile(128 if Q > 64 else 64, 128, 32 if B <= 32 else 64, False, 8 if Q > 64 else 4)
    wide = Q > 64 and (target == "cuda 90" or not target.startswith("cuda"))
    return DotTile(128, 128, 16, True, 8) if wide else DotTile(64, 128, 16, True, 4)


@triton.jit
def _popcount(word):
    """Set bits of each int32 or uint8; compilers know the idiom and use one instruction."""
    word = word.to(tl.uint32, bitcast=word.dtype == tl.int32)
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    return ((word * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def _distances(
    queries,
    rows,
    query_ok,
    row_ok,
    units,
    UNIT: tl.constexpr,
    CW: tl.constexpr,
    BQ: tl.constexpr,
    BN: tl.constexpr,
):
    """Pointers to queries [BQ] and rows [BN] of units * UNIT words or bytes -> [BQ, BN] int32."""
    distance = tl.zeros([BQ, BN], tl.int32)
    W = units * UNIT
    for w0 in range(0, W, CW):
        w = w0 + tl.arange(0, CW)[None, None, :]
        query = tl.load(queries[:, None, None] + w, mask=query_ok[:, None, None] & (w < W), other=0)
        code = tl.load(rows[None, :, None] + w, mask=row_ok[None, :, None] & (w < W), other=0)
        distance += tl.sum(_popcount(query ^ code), axis=2)
    return distance


@triton.jit
def _is_there(mask_ptr, n, N):
    """Whether rows n exist and are not masked."""
    there = (n >= 0) & (n < N)
    if mask_ptr is not None:
        there = there & (tl.load(mask_ptr + n, mask=there, other=0) != 0)
    return there


@triton.jit(do_not_specialize=["N", "Q", "units", "q_tiles", "groups"])
def _scan_popcount(
    queries_ptr, codes_ptr, mask_ptr, out_ptr, N, Q, units, q_tiles, groups, steps,
    UNIT: tl.constexpr, CW: tl.constexpr, G: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    GROUPS: tl.constexpr = max(BN // G, 1)
    tile = (tl.program_id(0) // q_tiles).to(tl.int64)
    q = (tl.program_id(0) % q_tiles).to(tl.int64) * BQ + tl.arange(0, BQ)
    best = tl.full([BQ, BN], 2147483647, tl.int32)
    for step in range(steps):
        n = (tile * steps + step) * BN + tl.arange(0, BN)
        rows = codes_ptr + n * (units * UNIT)
        distance = _distances(queries_ptr + q * (units * UNIT), rows, q < Q, n < N, units, UNIT, CW, BQ, BN)
        best = tl.where(_is_there(mask_ptr, n, N)[None, :], tl.minimum(best, distance), best)
    least = tl.min(tl.reshape(best, [BQ, GROUPS, BN // GROUPS]), axis=2)
    g = tile * GROUPS + tl.arange(0, GROUPS)
    ok = (q < Q)[:, None] & (g < groups)[None, :]
    tl.store(out_ptr + q[:, None] * groups + g[None, :], least, mask=ok)


@triton.jit
def _planes(code, BN: tl.constexpr, CB: tl.constexpr):
    """[BN, CB] int8 -> [BN, 8 * CB] int8: plane s, the bytes with bit s alone, after plane s - 1."""
    low, high = tl.join(code & 1, code & 16), tl.join(code & 4, code & 64)
    even = tl.join(low, high)
    low, high = tl.join(code & 2, code & 32), tl.join(code & 8, code & -128)
    bits = tl.join(even, tl.join(low, high))  # [BN, CB, 2, 2, 2], bit s = 4 i + 2 j + k
    return tl.reshape(tl.permute(bits, (0, 2, 3, 4, 1)), [BN, 8 * CB])


@triton.jit(do_not_specialize=["N", "Q", "units", "q_tiles", "groups"])
def _scan_dot(
    weights_ptr, popcounts_ptr, codes_ptr, words_ptr, mask_ptr, out_ptr, N, Q, units, q_tiles, groups, steps,
    UNIT: tl.constexpr, G: tl.constexpr, TOGETHER: tl.constexpr,
    CB: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """weights (Q, ceil(B/CB), 8, CB) int8 as in `_weights`; words: codes again, as int32."""
    GROUPS: tl.constexpr = max(BN // G, 1)
    tile = (tl.program_id(0) // q_tiles).to(tl.int64)
    q = (tl.program_id(0) % q_tiles).to(tl.int64) * BQ + tl.arange(0, BQ)
    B = units * UNIT
    weights = weights_ptr + q[:, None] * (tl.cdiv(B, CB) * CB * 8)
    b = tl.arange(0, CB)[None, :]
    best = tl.full(
        [BQ, GROUPS], 1 << 30, tl.int32
    )  # of 64 * (distance - popcount(query)); 2**30: nothing there
    for step in range(steps):
        n = (tile * steps + step) * BN + tl.arange(0, BN)
        row_ok = (n < N)[:, None]
        acc = tl.zeros([BQ, BN], tl.int32)
        count = tl.zeros([BN], tl.int32)
        for b0 in range(0, B, CB):
            code = tl.load(codes_ptr + n[:, None] * B + b0 + b, mask=row_ok & (b0 + b < B), other=0)
            if TOGETHER:
                k = b0 * 8 + tl.arange(0, 8 * CB)[None, :]
                weight = tl.load(weights + k, mask=(q < Q)[:, None], other=0)
                acc = tl.dot(weight, tl.trans(_planes(code, BN, CB)), acc, out_dtype=tl.int32)
            else:
                for s in tl.static_range(8):
                    weight = tl.load(weights + b0 * 8 + s * CB + b, mask=(q < Q)[:, None], other=0)
                    plane = code & ((1 << s) if s < 7 else -128)
                    acc = tl.dot(weight, tl.trans(plane), acc, out_dtype=tl.int32)
            w = b0 // 4 + tl.arange(0, CB // 4)[None, :]
            W = units * (UNIT // 4)
            word = tl.load(words_ptr + n[:, None] * W + w, mask=row_ok & (w < W), other=0)
            count += tl.sum(_popcount(word), axis=1)
        key = acc + tl.where(_is_there(mask_ptr, n, N), count * 64, 1 << 30)[None, :]
        best = tl.minimum(best, tl.min(tl.reshape(key, [BQ, GROUPS, BN // GROUPS]), axis=2))
    popcount = tl.load(popcounts_ptr + q, mask=q < Q, other=0)[:, None]
    least = tl.where(best >= 1 << 29, 2147483647, popcount + (best >> 6))
    g = tile * GROUPS + tl.arange(0, GROUPS)
    ok = (q < Q)[:, None] & (g < groups)[None, :]
    tl.store(out_ptr + q[:, None] * groups + g[None, :], least, mask=ok)


@triton.jit(do_not_specialize=["N", "R", "units", "tiles"])
def _gather(
    queries_ptr, codes_ptr, mask_ptr, ids_ptr, out_ptr, N, R, units, tiles,
    UNIT: tl.constexpr, CW: tl.constexpr, BR: tl.constexpr,
):  # fmt: skip
    q = (tl.program_id(0) // tiles).to(tl.int64) + tl.arange(0, 1)
    r = (tl.program_id(0) % tiles) * BR + tl.arange(0, BR)
    n = tl.load(ids_ptr + q * R + r, mask=r < R, other=-1)
    there = _is_there(mask_ptr, n, N)
    rows = codes_ptr + n * (units * UNIT)
    distance = _distances(queries_ptr + q * (units * UNIT), rows, q >= 0, there, units, UNIT, CW, 1, BR)
    distance = tl.where(there[None, :], distance, 2147483647)
    tl.store(out_ptr + q[:, None] * R + r[None, :], distance, mask=(r < R)[None, :])


def _words(rows: Tensor) -> tuple[Tensor, int]:
    """Packed rows as int32 where they can be, else as they are, and the bytes of an element."""
    if rows.shape[1] % 4 or rows.storage_offset() % 4 or rows.data_ptr() % 4:
        return rows, 1
    return rows.view(torch.int32), 4


def _units(length: int, most: int) -> dict[str, int]:
    """A row's length as units * UNIT, so that the compiler knows how far rows are aligned."""
    UNIT = math.gcd(length, most)
    return {"units": length // UNIT, "UNIT": UNIT}


def _weights(queries: Tensor, CB: int) -> tuple[Tensor, Tensor]:
    """(Q, B) uint8 -> (Q, ceil(B/CB), 8, CB) int8 for `_scan_dot`, and set bits of each query, (Q,) int32."""
    padded = torch.nn.functional.pad(queries, (0, -queries.shape[1] % CB))
    bits = (padded[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=queries.device)) & 1  # [Q, Bp, 8]
    s = torch.arange(8, dtype=torch.int16, device=queries.device)  # no list: a copy from the host waits for the GPU
    values = torch.where(s < 7, -(128 >> s), 1).to(torch.int8)
    weights = (bits.to(torch.int8) * values).view(len(queries), -1, CB, 8).transpose(2, 3).contiguous()
    return weights, bits.sum((1, 2), dtype=torch.int32)


def _launch_popcount(tile, queries, codes, mask, group, out):
    (Q, B), N = queries.shape, len(codes)
    codes, size = _words(codes)
    queries = queries.clone().view(codes.dtype)
    q_tiles, steps = triton.cdiv(Q, tile.BQ), max(1, group // tile.BN)
    _scan_popcount[(triton.cdiv(N, tile.BN * steps) * q_tiles,)](
        queries, codes, mask, out, N, Q, q_tiles=q_tiles, groups=out.shape[1], **_units(B // size, 4),
        CW=4, steps=steps, G=group, **tile._asdict(), num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


def _launch_dot(tile, queries, codes, mask, group, out):
    (Q, B), N = queries.shape, len(codes)
    weights, popcounts = _weights(queries, tile.CB)
    q_tiles, steps = triton.cdiv(Q, tile.BQ), max(1, group // tile.BN)
    _scan_dot[(triton.cdiv(N, tile.BN * steps) * q_tiles,)](
        weights, popcounts, codes.view(torch.int8), codes.view(torch.int32), mask, out, N, Q, q_tiles=q_tiles,
        groups=out.shape[1], **_units(B, 16), steps=steps, G=group, TOGETHER=tile.together,
        CB=tile.CB, BQ=tile.BQ, BN=tile.BN, num_warps=tile.num_warps, num_stages=1, enable_fp_fusion=False,
    )  # fmt: skip


def hamming_scan(
    queries: Tensor,
    codes: Tensor,
    mask: Tensor | None,
    group: int,
    tile: PopcountTile | DotTile | None = None,
) -> Tensor:
    """Launch: (Q, B) uint8, (N, B) uint8, (N,) bool or None -> (Q, ceil(N/group)) int32."""
    (Q, B), N = queries.shape, len(codes)
    out = torch.empty((Q, triton.cdiv(N, group)), dtype=torch.int32, device=codes.device)
    if out.numel() == 0:
        return out
    codes = codes.contiguous()
    tile = tile or _tile(Q, B, _words(codes)[1] == 4, compile_target())
    mask = None if mask is None else mask.contiguous().view(torch.uint8)
    args = (queries.contiguous(), codes, mask, group, out)
    if isinstance(tile, PopcountTile):
        _launch_popcount(tile, *args)
    else:
        launch_or(
            "_scan_dot[int8 tensor cores]",
            lambda: _launch_dot(tile, *args),
            lambda: _launch_popcount(_popcount_tile(Q, True), *args),
        )
    return out


def hamming_gather(queries: Tensor, codes: Tensor, mask: Tensor | None, ids: Tensor) -> Tensor:
    """Launch: (Q, B) uint8, (N, B) uint8, (N,) bool or None, (Q, R) int64 -> (Q, R) int32."""
    (N, B), R = codes.shape, ids.shape[1]
    out = torch.empty(ids.shape, dtype=torch.int32, device=codes.device)
    if out.numel() == 0:
        return out
    codes, size = _words(codes.contiguous())
    queries = queries.clone(memory_format=torch.contiguous_format).view(codes.dtype)
    mask = None if mask is None else mask.contiguous().view(torch.uint8)
    BR = 128
    tiles = triton.cdiv(R, BR)
    _gather[(len(queries) * tiles,)](
        queries, codes, mask, ids.contiguous(), out, N, R, tiles=tiles, **_units(B // size, 4),
        CW=4, BR=BR, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return out
