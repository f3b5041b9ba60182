"""Hamming distances: differing bits of packed rows and queries, for all rows or chosen rows.

distance[q, n] = popcount(query[q] xor code[n]), int32, exact. hamming_scan keeps the minimum of each `group`
rows; masked rows, rows past N and ids outside [0, N) count as 2**31 - 1.
Layouts: queries (Q, B) uint8, codes (N, B) uint8 of any B, read as 32-bit words if B is a multiple of 4, mask
(N,) bool or None, ids (Q, R) int64 -> hamming_scan (Q, ceil(N/group)), hamming_gather (Q, R).

One or two queries use _scan_popcount: xor and a population count, written with shifts, which LLVM turns into
POPC or v_bcnt. Lanes lie along a row, 16 bytes each, so that a warp reads consecutive bytes.
More queries use int8 tensor cores: byte & 2**s is the int8 value 2**s of a set bit (-128 for s = 7), so that
ANDs alone unpack the bits, four per 32-bit instruction. The order of the sum over k is free, so a chunk of CB
bytes becomes eight planes of CB int8 without moving bytes.
Up to _SOME queries use _scan_few: rows are on the left, and their planes are made in registers. With query
bits a, popcount(a xor b) = popcount(a) + sum b (1 - 2 a). The weights w[s] = 2**(6-s) (1 - 2 a) make 64 of
each term for s < 7; w[7] = 2 a - 1 makes 128 of it, in its own sum:
    distance = popcount(query) + (2 * acc + top) / 128.
More use _scan_dot: queries are on the left, so that the rows of a group are in few threads. There is no room
for a second sum: w[s] = -2**(7-s) a (a for s = 7) adds -128 for each bit set in both. As popcount(a xor b) =
popcount(a) + popcount(b) - 2 popcount(a & b),
    distance = popcount(query) + popcount(code) + acc / 64.
Its planes are one operand of 8*CB (`together`; IGMMA after 16-byte stores on sm_90), or eight operands of CB
in sequence (no byte-wise stores on sm_100). All sums are within 2**29 for B below 2**19.
Bytes moved: hamming_scan N*B in (again from L2 for every BQ queries), Q*ceil(N/group)*4 out; hamming_gather
Q*R*(B + 12).
Source: popcount as in Warren, "Hacker's Delight", 5-1.
Ladder: 1. one word at a time, one lane per row: strided 4-byte loads. 2. chunks of 16 bytes, one lane per
row: half of an H200's memory bandwidth. 3. (here) lanes along a row. 4. +1/-1 bits on tensor cores: the
eighth plane needs a shift, and int8 shifts split every word into bytes. 5. (here) AND only. Planes joined bit
by bit cost a byte permutation and do not compile for sm_100 with triton 3.9; whole planes do. 6. few queries
also on the left, in a tile of 64: 62 ps per row on an H200; with rows on the left, 12 ps per row modelled
(here). 7. _scan_dot in 149 registers: one program per SM, without overlap; 128 registers allow two. 8. many
queries on the right, RowsTile(128, 64, 64): 286 instructions per warp instead of 507 modelled, but 48 bytes
are multiplied as 64. Two planes of 16 bytes per product: a mask per byte, which is not folded.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import compile_target, launch_or

_FEW = 2  # up to so many queries, counting costs no more than reading or products
_SOME = 32  # up to so many queries, rows are on the left
_KEPT = 128  # up to so many bytes per row, these queries' weights stay in shared memory


class PopcountTile(NamedTuple):
    """Sizes: queries that share what a program reads, and rows per step."""

    BQ: int
    BN: int


class RowsTile(NamedTuple):
    """Sizes: queries and rows per program, bytes of a row per step."""

    BQ: int
    BN: int
    CB: int


class DotTile(NamedTuple):
    """Sizes: queries and rows per program, bytes of a row per step, planes in one operand or eight, warps."""

    BQ: int
    BN: int
    CB: int
    together: bool
    num_warps: int


Tile = PopcountTile | RowsTile | DotTile

TILES = (
    RowsTile(16, 64, 64),
    RowsTile(128, 64, 64),
    DotTile(64, 128, 16, True, 4),
    DotTile(128, 128, 16, True, 8),
)


def _popcount_tile(Q: int, length: int) -> PopcountTile:
    """Choose up to eight queries, and rows for 32 words per thread. length: words or bytes of a row."""
    BQ = min(triton.next_power_of_2(Q), 8)
    return PopcountTile(BQ, max(4096 // (BQ * _lanes(length) * 4), 16))


def _lanes(length: int) -> int:
    """Return the chunks of four words or bytes per row, at most eight."""
    return min(triton.next_power_of_2(triton.cdiv(length, 4)), 8)


def _tile(Q: int, B: int, whole_words: bool, target: str) -> Tile:
    """Choose counting for few queries or rows of incomplete words, else the widest tile without spills."""
    if Q <= _FEW or not whole_words:
        return _popcount_tile(Q, B // 4 if whole_words else B)
    if Q <= _SOME:
        return RowsTile(16 if Q <= 16 else 32, 64, 32 if 0 < B % 64 <= 32 else 64)
    if target.startswith("cuda 10"):
        return DotTile(128, 64, 32 if B <= 32 else 64, False, 8)
    wide = Q > 64 and (target == "cuda 90" or not target.startswith("cuda"))
    return DotTile(128, 128, 16, True, 8) if wide else DotTile(64, 128, 16, True, 4)


@triton.jit
def _popcount(word):
    """Count the set bits of each int32 or uint8, by an idiom that compilers turn into one instruction."""
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
    """Return [BQ, BN] int32 for pointers to queries [BQ] and rows [BN] of units * UNIT words or bytes."""
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
    """Return whether rows n exist and are not masked."""
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
    """Unpack [BN, CB] int8 to [BN, 8 * CB] int8: plane s holds bit s of each byte, after plane s - 1."""
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
    """weights: from `_weights`. words: the codes as int32."""
    GROUPS: tl.constexpr = max(BN // G, 1)
    tile = (tl.program_id(0) // q_tiles).to(tl.int64)
    q = (tl.program_id(0) % q_tiles).to(tl.int64) * BQ + tl.arange(0, BQ)
    B = units * UNIT
    weights = weights_ptr + q[:, None] * (tl.cdiv(B, CB) * CB * 8)
    b = tl.arange(0, CB)[None, :]
    best = tl.full(
        [BQ, GROUPS], 1 << 30, tl.int32
    )  # minima of 64 * (distance - popcount(query)); 2**30: no row
    for step in range(steps):
        n = (tile * steps + step) * BN + tl.arange(0, BN)
        row_ok = (n < N)[:, None]
        acc = tl.zeros([BQ, BN], tl.int32)
        count = tl.zeros([BN], tl.int32)
        for b0 in range(0, B, CB):
            code = tl.load(codes_ptr + n[:, None] * B + b0 + b, mask=row_ok & (b0 + b < B), other=0)
            if TOGETHER:
                k = b0 * 8 + tl.arange(0, 8 * CB)[None, :]
                weight = tl.load(weights + k)
                acc = tl.dot(weight, tl.trans(_planes(code, BN, CB)), acc, out_dtype=tl.int32)
            else:
                for s in tl.static_range(8):
                    weight = tl.load(weights + b0 * 8 + s * CB + b)
                    plane = code & ((1 << s) if s < 7 else -128)
                    acc = tl.dot(weight, tl.trans(plane), acc, out_dtype=tl.int32)
            w = b0 // 4 + tl.arange(0, CB // 4)[None, :]
            W = units * (UNIT // 4)
            word = tl.load(words_ptr + n[:, None] * W + w, mask=row_ok & (w < W), other=0)
            count += tl.sum(_popcount(word), axis=1)
        key = acc + tl.where(_is_there(mask_ptr, n, N), count * 64, 1 << 30)[None, :]
        best = tl.minimum(best, tl.min(tl.reshape(key, [BQ, GROUPS, BN // GROUPS]), axis=2))
    popcount = tl.load(popcounts_ptr + q)[:, None]
    least = tl.where(best >= 1 << 29, 2147483647, popcount + (best >> 6))
    g = tile * GROUPS + tl.arange(0, GROUPS)
    ok = (q < Q)[:, None] & (g < groups)[None, :]
    tl.store(out_ptr + q[:, None] * groups + g[None, :], least, mask=ok)


@triton.jit
def _add_planes(acc, top, code, weights, CB: tl.constexpr):
    """Add code [BN, CB] times weights, pointers [BQ, CB] to plane 0, to acc and top [BN, BQ]."""
    for s in tl.static_range(7):
        acc = tl.dot(code & (1 << s), tl.trans(tl.load(weights + s * CB)), acc, out_dtype=tl.int32)
    top = tl.dot(code & -128, tl.trans(tl.load(weights + 7 * CB)), top, out_dtype=tl.int32)
    return acc, top


@triton.jit(do_not_specialize=["N", "Q", "units", "q_tiles", "groups"])
def _scan_few(
    weights_ptr, popcounts_ptr, codes_ptr, mask_ptr, out_ptr, N, Q, units, q_tiles, groups, steps,
    UNIT: tl.constexpr, G: tl.constexpr, CHUNKS: tl.constexpr,
    CB: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """weights: from `_weights`, with a sign. CHUNKS of CB bytes per row, 0 for any number."""
    GROUPS: tl.constexpr = max(BN // G, 1)
    tile = (tl.program_id(0) // q_tiles).to(tl.int64)
    q = (tl.program_id(0) % q_tiles) * BQ + tl.arange(0, BQ)
    B = units * UNIT
    b = tl.arange(0, CB)[None, :]
    weights = weights_ptr + q[:, None].to(tl.int64) * (tl.cdiv(B, CB) * CB * 8) + b
    best = tl.full([BN, BQ], 1 << 30, tl.int32)  # 128 * (distance - popcount(query)); 2**30: no row
    for step in range(steps):
        n = (tile * steps + step) * BN + tl.arange(0, BN)
        rows = codes_ptr + n[:, None] * B + b
        row_ok = (n < N)[:, None]
        acc = tl.zeros([BN, BQ], tl.int32)
        top = tl.zeros([BN, BQ], tl.int32)
        if CHUNKS > 0:  # weights are equal in all steps, so the compiler loads them once
            for chunk in tl.static_range(CHUNKS):
                code = tl.load(rows + chunk * CB, mask=row_ok & (chunk * CB + b < B), other=0)
                acc, top = _add_planes(acc, top, code, weights + chunk * (8 * CB), CB)
        else:
            for b0 in range(0, B, CB):
                code = tl.load(rows + b0, mask=row_ok & (b0 + b < B), other=0)
                acc, top = _add_planes(acc, top, code, weights + b0 * 8, CB)
        best = tl.where(_is_there(mask_ptr, n, N)[:, None], tl.minimum(best, 2 * acc + top), best)
    least = tl.min(tl.reshape(best, [GROUPS, BN // GROUPS, BQ]), axis=1)
    popcount = tl.load(popcounts_ptr + q)[None, :]
    least = tl.where(least >= 1 << 29, 2147483647, popcount + (least >> 7))
    g = tile * GROUPS + tl.arange(0, GROUPS)
    ok = (g < groups)[:, None] & (q < Q)[None, :]
    tl.store(out_ptr + q[None, :].to(tl.int64) * groups + g[:, None], least, mask=ok)


@triton.jit
def _weigh(
    queries_ptr, weights_ptr, popcounts_ptr, Q, B, SIGNED: tl.constexpr, CB: tl.constexpr
):  # fmt: skip
    q = tl.program_id(0).to(tl.int64)
    s = tl.arange(0, 8)[:, None]
    b = tl.arange(0, CB)[None, :]
    query = queries_ptr + tl.minimum(q, Q - 1) * B + b  # past Q repeat the last
    weights = weights_ptr + q * (tl.cdiv(B, CB) * CB * 8) + s * CB + b
    count = tl.zeros([8, CB], tl.int32)
    for b0 in range(0, B, CB):
        byte = tl.load(query + b0, mask=b0 + b < B, other=0).to(tl.int32)
        bit = (byte >> s) & 1
        if SIGNED:
            weight = tl.where(s < 7, (64 >> s) * (1 - 2 * bit), 2 * bit - 1)
        else:
            weight = tl.where(s < 7, -(128 >> s), 1) * bit
        tl.store(weights + b0 * 8, weight.to(tl.int8))
        count += bit
    tl.store(popcounts_ptr + q, tl.sum(count))


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
    """View packed rows as int32 if possible. Also return the bytes per element."""
    if rows.shape[1] % 4 or rows.storage_offset() % 4 or rows.data_ptr() % 4:
        return rows, 1
    return rows.view(torch.int32), 4


def _like(queries: Tensor, codes: Tensor) -> Tensor:
    """View queries in the elements of the codes, words or bytes."""
    queries = queries.contiguous()
    at_odd_byte = codes.dtype == torch.int32 and _words(queries)[1] == 1
    return (queries.clone() if at_odd_byte else queries).view(codes.dtype)


def _units(length: int, most: int) -> dict[str, int]:
    """Split a row's length into units * UNIT, so that the compiler knows the alignment of rows."""
    UNIT = math.gcd(length, most)
    return {"units": length // UNIT, "UNIT": UNIT}


def _weights(queries: Tensor, tile: RowsTile | DotTile) -> tuple[Tensor, Tensor]:
    """Weigh (Q, B) uint8 to (Q, ceil(B/CB), 8, CB) int8, Q padded to tiles, and count set bits, int32."""
    Q, B = queries.shape
    rows, chunks = triton.cdiv(Q, tile.BQ) * tile.BQ, triton.cdiv(B, tile.CB)
    weights = torch.empty((rows, chunks, 8, tile.CB), dtype=torch.int8, device=queries.device)
    popcounts = torch.empty(rows, dtype=torch.int32, device=queries.device)
    signed = isinstance(tile, RowsTile)
    _weigh[(rows,)](queries, weights, popcounts, Q, B, SIGNED=signed, CB=tile.CB, num_warps=1)
    return weights, popcounts


def _launch_popcount(tile, queries, codes, mask, group, out):
    (Q, B), N = queries.shape, len(codes)
    codes, size = _words(codes)
    queries = _like(queries, codes)
    q_tiles, steps = triton.cdiv(Q, tile.BQ), max(1, group // tile.BN)
    _scan_popcount[(triton.cdiv(N, tile.BN * steps) * q_tiles,)](
        queries, codes, mask, out, N, Q, q_tiles=q_tiles, groups=out.shape[1], **_units(B // size, 4),
        CW=4 * _lanes(B // size), steps=steps, G=group, **tile._asdict(), num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip


def _launch_dot(tile, queries, codes, mask, group, out):
    (Q, B), N = queries.shape, len(codes)
    weights, popcounts = _weights(queries, tile)
    q_tiles, steps = triton.cdiv(Q, tile.BQ), max(1, group // tile.BN)
    grid, codes = (triton.cdiv(N, tile.BN * steps) * q_tiles,), codes.view(torch.int8)
    sizes = {"q_tiles": q_tiles, "groups": out.shape[1], **_units(B, 16), "steps": steps, "G": group}
    if isinstance(tile, RowsTile):
        _scan_few[grid](
            weights, popcounts, codes, mask, out, N, Q, **sizes, **tile._asdict(),
            CHUNKS=weights.shape[1] if B <= _KEPT else 0,
            num_warps=4, num_stages=1, enable_fp_fusion=False,
        )  # fmt: skip
    else:
        _scan_dot[grid](
            weights, popcounts, codes, codes.view(torch.int32), mask, out, N, Q, **sizes,
            TOGETHER=tile.together, CB=tile.CB, BQ=tile.BQ, BN=tile.BN, num_warps=tile.num_warps,
            num_stages=1, enable_fp_fusion=False, **_registers(tile, group),
        )  # fmt: skip


def _registers(tile: DotTile, group: int) -> dict[str, int]:
    """Limit registers to two programs of eight warps per SM if the epilogue is short enough."""
    fits = tile.num_warps == 8 and group >= 32 and compile_target() == "cuda 90"
    return {"maxnreg": 128} if fits else {}


def hamming_scan(
    queries: Tensor,
    codes: Tensor,
    mask: Tensor | None,
    group: int,
    tile: Tile | None = None,
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
            "_scan_few[int8 tensor cores]" if isinstance(tile, RowsTile) else "_scan_dot[int8 tensor cores]",
            lambda: _launch_dot(tile, *args),
            lambda: _launch_popcount(_popcount_tile(Q, B // 4), *args),
        )
    return out


def hamming_gather(queries: Tensor, codes: Tensor, mask: Tensor | None, ids: Tensor) -> Tensor:
    """Launch: (Q, B) uint8, (N, B) uint8, (N,) bool or None, (Q, R) int64 -> (Q, R) int32."""
    (N, B), R = codes.shape, ids.shape[1]
    out = torch.empty(ids.shape, dtype=torch.int32, device=codes.device)
    if out.numel() == 0:
        return out
    codes, size = _words(codes.contiguous())
    queries = _like(queries, codes)
    mask = None if mask is None else mask.contiguous().view(torch.uint8)
    CW = 4 * _lanes(B // size)
    BR = max(2048 // CW, 16)
    tiles = triton.cdiv(R, BR)
    _gather[(len(queries) * tiles,)](
        queries, codes, mask, ids.contiguous(), out, N, R, tiles=tiles, **_units(B // size, 4),
        CW=CW, BR=BR, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return out
