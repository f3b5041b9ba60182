"""Inner products of int8 queries with rows of 8-bit or 4-bit scalar codes.

score[q, n] = (query_scale[q] * float(dot[q, n]) + query_offset[q]) * scale[n] + bias[n], the exact int32 sum
dot[q, n] = sum_d queries[q, d] * code[n, d]; the float32 steps run in the order written and are not fused, so
they round as plain torch does. The greatest of each `group` rows is kept; masked rows and rows past N score
-inf.
Layouts: codes (N, B) uint8, one code 0..255 a byte (B = D), or two of 0..15, dim 2j in the low half of byte j
(B = ceil(D/2)); queries (Q, D) int8, query_scale (Q,), query_offset (Q,), scale and bias (N,) or None,
mask (N,) bool or None -> (Q, ceil(N/group)) float32.

Tensor cores multiply signed bytes, and codes are unsigned. Flipping the top bit of a byte takes 128 away:
    8 bits: (x ^ 128) as int8 = x - 128, so dot = sum q (x ^ 128) + 128 sum q.
    4 bits: low = x & 15 is in 0..15 as it is; (x & 240) ^ 128 as int8 = 16 high - 128, so
        dot = sum q_even low + (sum q_odd ((x & 240) ^ 128) + 128 sum q_odd) / 16, a division without rest.
Both halves of a byte stay where they lie: no shifts, which split every word into bytes. The launcher lays the
queries out to match, parts (Q, 1 or 2, Bp) int8, and sums `offset` = 128 * sum of the last part. All within
int32 for D <= 65536.
Few queries: codes times queries in int32 by the plain cores, chunks of 16 bytes a lane.
Bytes moved: N*(B + 4 + 4) in (again, from L2, for every BQ queries), Q*ceil(N/group)*4 out.
Source: the codes are those of FAISS ScalarQuantizer, QT_8bit and QT_4bit.
Ladder: 1. products in int32 (kept for few queries, and where the other does not compile). 2. int8 tensor
cores (here). 3. both halves joined into one operand: byte permutations as many as products.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import compile_target, launch_or

_FEW = 4  # queries up to which plain products keep up with memory


class Tile(NamedTuple):
    """Queries and rows a program, bytes of a row a step, on tensor cores or not, warps."""

    BQ: int
    BN: int
    CB: int
    on_tensor_cores: bool
    num_warps: int


def _plain_tile(Q: int) -> Tile:
    return Tile(min(triton.next_power_of_2(Q), 4), 128, 16, False, 4)


def _tile(Q: int, B: int, nbits: int, target: str) -> Tile:
    """Plain products for few queries; else the widest tile that spills nowhere.

    Rows that are not whole sixteens take many pointers, 4 bits take two accumulators, and a thread of
    sm_100 holds every column of a row.
    """
    if Q <= _FEW:
        return _plain_tile(Q)
    if B % 16:
        return Tile(64, 32, 32, True, 4)
    return Tile(64, 128 if nbits == 8 else 32 if target.startswith("cuda 10") else 64, 64, True, 4)


@triton.jit
def _plain_dots(
    queries_ptr,
    rows,
    q,
    query_ok,
    row_ok,
    B,
    NBITS: tl.constexpr,
    CB: tl.constexpr,
    BQ: tl.constexpr,
    BN: tl.constexpr,
):
    """Pointers to rows [BN] against queries q [BQ] of parts (Q, 8 // NBITS, Bp) -> [BQ, BN] int32."""
    Bp = tl.cdiv(B, CB) * CB
    parts = queries_ptr + q[:, None, None] * (Bp * (8 // NBITS))
    dots = tl.zeros([BQ, BN], tl.int32)
    for b0 in range(0, B, CB):
        b = b0 + tl.arange(0, CB)[None, None, :]
        code = tl.load(rows[None, :, None] + b, mask=row_ok[None, :, None] & (b < B), other=0).to(tl.int32)
        query = tl.load(parts + b, mask=query_ok[:, None, None], other=0).to(tl.int32)
        if NBITS == 8:
            dots += tl.sum(query * (code & 255), axis=2)
        else:
            odd = tl.load(parts + Bp + b, mask=query_ok[:, None, None], other=0).to(tl.int32)
            dots += tl.sum(query * (code & 15) + odd * ((code >> 4) & 15), axis=2)
    return dots


@triton.jit
def _tensor_dots(
    queries_ptr, rows, q, query_ok, row_ok, offset, B,
    NBITS: tl.constexpr, CB: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """As `_plain_dots`, on int8 tensor cores; offset [BQ]: 128 times the sum of the queries' last part."""
    Bp = tl.cdiv(B, CB) * CB
    parts = queries_ptr + q[:, None] * (Bp * (8 // NBITS))
    flipped = tl.zeros([BQ, BN], tl.int32)
    low = tl.zeros([BQ, BN], tl.int32)
    for b0 in range(0, B, CB):
        b = b0 + tl.arange(0, CB)[None, :]
        code = tl.load(rows[:, None] + b, mask=row_ok[:, None] & (b < B), other=0)
        query = tl.load(parts + b, mask=query_ok[:, None], other=0)
        if NBITS == 8:
            flipped = tl.dot(query, tl.trans(code ^ -128), flipped, out_dtype=tl.int32)
        else:
            odd = tl.load(parts + Bp + b, mask=query_ok[:, None], other=0)
            low = tl.dot(query, tl.trans(code & 15), low, out_dtype=tl.int32)
            flipped = tl.dot(odd, tl.trans((code & -16) ^ -128), flipped, out_dtype=tl.int32)
    dots = flipped + offset[:, None]
    if NBITS == 4:
        dots = low + (dots >> 4)
    return dots


@triton.jit(do_not_specialize=["N", "Q", "units", "q_tiles", "groups"])
def _scalar_scan(
    queries_ptr, offset_ptr, query_scale_ptr, query_offset_ptr, codes_ptr, scale_ptr, bias_ptr, mask_ptr,
    out_ptr, N, Q, units, q_tiles, groups, steps,
    UNIT: tl.constexpr, NBITS: tl.constexpr, TENSOR: tl.constexpr, G: tl.constexpr,
    CB: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    GROUPS: tl.constexpr = max(BN // G, 1)
    tile = (tl.program_id(0) // q_tiles).to(tl.int64)
    q = (tl.program_id(0) % q_tiles).to(tl.int64) * BQ + tl.arange(0, BQ)
    query_scale = tl.load(query_scale_ptr + q, mask=q < Q, other=0.0)
    B = units * UNIT
    best = tl.full([BQ, GROUPS], float("-inf"), tl.float32)
    for step in range(steps):
        n = (tile * steps + step) * BN + tl.arange(0, BN)
        there = n < N
        if TENSOR:
            offset = tl.load(offset_ptr + q, mask=q < Q, other=0)
            dots = _tensor_dots(queries_ptr, codes_ptr + n * B, q, q < Q, there, offset, B, NBITS, CB, BQ, BN)
        else:
            dots = _plain_dots(queries_ptr, codes_ptr + n * B, q, q < Q, there, B, NBITS, CB, BQ, BN)
        score = query_scale[:, None] * dots.to(tl.float32)
        if query_offset_ptr is not None:
            score = score + tl.load(query_offset_ptr + q, mask=q < Q, other=0.0)[:, None]
        if scale_ptr is not None:
            score = score * tl.load(scale_ptr + n, mask=there, other=0.0)[None, :]
        if bias_ptr is not None:
            score = score + tl.load(bias_ptr + n, mask=there, other=0.0)[None, :]
        if mask_ptr is not None:
            there = there & (tl.load(mask_ptr + n, mask=there, other=0) != 0)
        score = tl.where(there[None, :], score, float("-inf"))
        best = tl.maximum(best, tl.max(tl.reshape(score, [BQ, GROUPS, BN // GROUPS]), axis=2))
    g = tile * GROUPS + tl.arange(0, GROUPS)
    ok = (q < Q)[:, None] & (g < groups)[None, :]
    tl.store(out_ptr + q[:, None] * groups + g[None, :], best, mask=ok)


def _parts(queries: Tensor, nbits: int, CB: int) -> tuple[Tensor, Tensor]:
    """(Q, D) int8 -> (Q, 1 or 2, B padded to CB) int8, a part a place in a byte; (Q,) offsets."""
    per_byte = 8 // nbits
    padded = torch.nn.functional.pad(queries, (0, -queries.shape[1] % (per_byte * CB)))
    parts = padded.view(len(queries), -1, per_byte).transpose(1, 2).contiguous()
    return parts, 128 * parts[:, -1].sum(1, dtype=torch.int32)


def scalar_scan(
    codes: Tensor, queries: Tensor, query_scale: Tensor, query_offset: Tensor | None,
    scale: Tensor | None, bias: Tensor | None, mask: Tensor | None, nbits: int, group: int,
    tile: Tile | None = None,
) -> Tensor:  # fmt: skip
    """Launch: (N, B) uint8, (Q, D) int8, (Q,) float32, (Q,) and twice (N,) float32 or None, (N,) bool or None
    -> (Q, ceil(N/group)) float32."""
    (N, B), Q = codes.shape, len(queries)
    out = torch.empty((Q, triton.cdiv(N, group)), dtype=torch.float32, device=codes.device)
    if out.numel() == 0:
        return out
    codes = codes.contiguous().view(torch.int8)
    query_offset, scale, bias = (None if t is None else t.contiguous() for t in (query_offset, scale, bias))
    mask = None if mask is None else mask.contiguous().view(torch.uint8)
    UNIT = math.gcd(B, 16)  # so that the compiler knows how far rows are aligned

    def launch(tile):
        parts, offset = _parts(queries, nbits, tile.CB)
        q_tiles, steps = triton.cdiv(Q, tile.BQ), max(1, group // tile.BN)
        _scalar_scan[(triton.cdiv(N, tile.BN * steps) * q_tiles,)](
            parts, offset, query_scale.contiguous(), query_offset, codes, scale, bias, mask, out,
            N, Q, B // UNIT, q_tiles, out.shape[1], steps,
            UNIT=UNIT, NBITS=nbits, TENSOR=tile.on_tensor_cores, G=group, CB=tile.CB, BQ=tile.BQ, BN=tile.BN,
            num_warps=tile.num_warps, num_stages=1, enable_fp_fusion=False,
        )  # fmt: skip

    tile = tile or _tile(Q, B, nbits, compile_target())
    if tile.on_tensor_cores:
        launch_or("_scalar_scan[int8 tensor cores]", lambda: launch(tile), lambda: launch(_plain_tile(Q)))
    else:
        launch(tile)
    return out
