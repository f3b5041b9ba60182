"""Inner products of int8 queries with rows of 8-bit or 4-bit scalar codes.

score[q, n] = (query_scale[q] * float(dot[q, n]) + query_offset[q]) * scale[n] + bias[n], the exact int32 sum
dot[q, n] = sum_d queries[q, d] * code[n, d]; the float32 steps run in the order written and are not fused, so
they round as plain torch does. The maximum of each `group` rows is kept; masked rows and rows past N score
-inf.
Layouts: codes (N, B) uint8, one code 0..255 per byte (B = D), or two of 0..15, dim 2j in the low half of byte
j (B = ceil(D/2)); queries (Q, D) int8, query_scale (Q,), query_offset (Q,), scale and bias (N,) or None, mask
(N,) bool or None -> (Q, ceil(N/group)) float32.

Tensor cores multiply signed bytes, but codes are unsigned. Flipping the top bit of a byte subtracts 128:
    8 bits: (x ^ 128) as int8 = x - 128, so dot = sum q (x ^ 128) + 128 sum q.
    4 bits: low = x & 15 is in 0..15 as it is; (x & 240) ^ 128 as int8 = 16 high - 128, so
        dot = sum q_even low + (sum q_odd ((x & 240) ^ 128) + 128 sum q_odd) / 16, an exact division.
Both halves of a byte stay in place, because shifts would split every word into bytes. The launcher lays out
the queries to match, parts (Q, 1 or 2, Bp) int8, and computes `offset` = 128 * sum of the last part. All
values are within int32 for D <= 65536.
Rows are the left operand, so that flips and masks are made in registers, four bytes per instruction, and the
scale and bias of rows take few registers. The sum starts at the offset.
If tensor cores do not compile: codes times queries in int32 on the plain cores, 16 bytes per lane and step.
Bytes moved: N*(B + 4 + 4) in (again from L2 for every BQ queries), Q*ceil(N/group)*4 out.
Source: the codes are those of FAISS ScalarQuantizer, QT_8bit and QT_4bit.
Ladder: 1. int32 products (now the simple form): byte permutations, and lanes along rows, so that one query
took twice as long as an H200's memory. 2. int8 tensor cores with the queries on the left: flipped codes go
through shared memory, and every thread holds the scales of many rows. 3. both halves joined into one operand:
as many byte permutations as products. 4. (here) rows on the left, with whole rows in flight at once and
queries in shared memory: 64 rows of 384 bytes by 64 queries in 434 instructions per warp instead of 632, by
16 queries in 275. With 128 queries and maxima that are kept between tiles, registers spill. Groups of 32 and
64 keep none, so their programs do several tiles by 128 queries on sm_90: modelled, 12.4 ms instead of 22.2
for 20 million rows and 1,024 queries.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import compile_target, launch_or

_KEPT = 512  # up to so many dimensions, a program's queries stay in shared memory


class Tile(NamedTuple):
    """Sizes: queries and rows per program, bytes of a row per step, tensor cores or not, registers.

    registers: per thread; 0 leaves the choice to the compiler.
    """

    BQ: int
    BN: int
    CB: int
    on_tensor_cores: bool
    registers: int = 0


TILES = (
    Tile(16, 64, 128, True),
    Tile(16, 64, 64, True),
    Tile(32, 64, 64, True),
    Tile(64, 64, 64, True),
    Tile(64, 64, 64, True, 168),
    Tile(128, 64, 128, True),
)


def _plain_tile(Q: int) -> Tile:
    return Tile(min(triton.next_power_of_2(Q), 4), 128, 16, False)


def _tile(Q: int, B: int, nbits: int, group: int, target: str) -> Tile:
    """Choose a tile of up to 64 queries.

    Up to 32 for rows that need a pointer per byte, and for 4 bits if two sums and the accumulators do not
    fit.
    """
    if B % 16:
        return Tile(16 if Q <= 16 else 32, 64, 32, True)
    if Q > 64 and nbits == 8 and 32 <= group <= 64 and B <= _KEPT and target == "cuda 90":
        return Tile(128, 64, 128, True)  # keeps no maxima between tiles; groups of 1 would spill
    most = 32 if nbits == 4 and target.startswith("cuda") and target != "cuda 90" else 64
    BQ = min(max(triton.next_power_of_2(Q), 16), most)
    three = BQ == 64 and nbits == 8 and group >= 64 and target == "cuda 90"  # three programs per SM
    return Tile(BQ, 64, 128 if BQ < 64 and nbits == 8 else 64, True, 168 if three else 0)


@triton.jit
def _plain_dots(
    parts, rows, row_ok, b, B, Bp,
    NBITS: tl.constexpr, CB: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Return [BQ, BN] int32 for pointers to parts (8 // NBITS, Bp) of queries [BQ] and rows [BN]; b [CB]."""
    dots = tl.zeros([BQ, BN], tl.int32)
    parts, rows, b = parts[:, None, None], rows[None, :, None], b[None, None, :]
    for b0 in range(0, B, CB):
        code = tl.load(rows + b0 + b, mask=row_ok[None, :, None] & (b0 + b < B), other=0).to(tl.int32)
        query = tl.load(parts + b0 + b).to(tl.int32)
        if NBITS == 8:
            dots += tl.sum(query * (code & 255), axis=2)
        else:
            odd = tl.load(parts + Bp + b0 + b).to(tl.int32)
            dots += tl.sum(query * (code & 15) + odd * ((code >> 4) & 15), axis=2)
    return dots


@triton.jit
def _of_queries(parts, Bp, NBITS: tl.constexpr):
    """Load a chunk of the queries' first part and of their last part, by pointers [BQ, CB] to the first."""
    first = tl.load(parts)
    return first, first if NBITS == 8 else tl.load(parts + Bp)


@triton.jit
def _add_product(flipped, low, code, first, last, NBITS: tl.constexpr):
    """Add code [BN, CB] times the parts of queries [BQ, CB] to flipped and low [BN, BQ]."""
    if NBITS == 4:
        low = tl.dot(code & 15, tl.trans(first), low, out_dtype=tl.int32)
        code = code & -16
    return tl.dot(code ^ -128, tl.trans(last), flipped, out_dtype=tl.int32), low


@triton.jit
def _dots(
    kept, parts, rows, row_ok, offset, b, B, Bp, NBITS: tl.constexpr, CHUNKS: tl.constexpr,
    CB: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Do what `_plain_dots` does on int8 tensor cores -> [BN, BQ].

    kept: `_of_queries` of each of CHUNKS chunks per row, or empty with CHUNKS = 0 for any number. offset
    [BQ]: 128 times the sum of the queries' last part.
    """
    flipped = tl.zeros([BN, BQ], tl.int32) + offset[None, :]
    low = tl.zeros([BN, BQ], tl.int32)
    row_ok, b = row_ok[:, None], b[None, :]
    parts, rows = parts[:, None] + b, rows[:, None] + b
    if CHUNKS > 0:
        for chunk in tl.static_range(CHUNKS):
            code = tl.load(rows + chunk * CB, mask=row_ok & (chunk * CB + b < B), other=0)
            flipped, low = _add_product(flipped, low, code, kept[2 * chunk], kept[2 * chunk + 1], NBITS)
    else:
        for b0 in range(0, B, CB):
            code = tl.load(rows + b0, mask=row_ok & (b0 + b < B), other=0)
            first, last = _of_queries(parts + b0, Bp, NBITS)
            flipped, low = _add_product(flipped, low, code, first, last, NBITS)
    return flipped if NBITS == 8 else low + (flipped >> 4)


@triton.jit
def _bias_of_rows(bias_ptr, mask_ptr, n, N):
    """Return which of rows n [BN] exist, and their bias, -inf for rows that are masked or past N."""
    there = n < N
    if mask_ptr is not None:
        there = there & (tl.load(mask_ptr + n, mask=there, other=0) != 0)
    if bias_ptr is None:
        bias = tl.where(there, -0.0, float("-inf"))  # adding -0.0 changes no float
    else:
        bias = tl.load(bias_ptr + n, mask=there, other=float("-inf"))
    return there, bias


@triton.jit(do_not_specialize=["N", "Q", "units", "q_tiles", "groups"])
def _plain_scan(
    parts_ptr, query_scale_ptr, query_offset_ptr, codes_ptr, scale_ptr, bias_ptr, mask_ptr,
    out_ptr, N, Q, units, q_tiles, groups, steps,
    UNIT: tl.constexpr, NBITS: tl.constexpr, G: tl.constexpr,
    CB: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    GROUPS: tl.constexpr = max(BN // G, 1)
    tile = (tl.program_id(0) // q_tiles).to(tl.int64)
    q = (tl.program_id(0) % q_tiles).to(tl.int64) * BQ + tl.arange(0, BQ)
    query_scale = tl.load(query_scale_ptr + q, mask=q < Q, other=0.0)[:, None]
    B = units * UNIT
    Bp = tl.cdiv(B, CB) * CB
    parts, b = parts_ptr + q * (Bp * (8 // NBITS)), tl.arange(0, CB)
    best = tl.full([BQ, GROUPS], float("-inf"), tl.float32)
    for step in range(steps):
        n = (tile * steps + step) * BN + tl.arange(0, BN)
        dots = _plain_dots(parts, codes_ptr + n * B, n < N, b, B, Bp, NBITS, CB, BQ, BN)
        score = query_scale * dots.to(tl.float32)
        if query_offset_ptr is not None:
            score += tl.load(query_offset_ptr + q, mask=q < Q, other=0.0)[:, None]
        there, bias = _bias_of_rows(bias_ptr, mask_ptr, n, N)
        if scale_ptr is not None:
            score *= tl.load(scale_ptr + n, mask=there, other=0.0)[None, :]
        score += bias[None, :]
        best = tl.maximum(best, tl.max(tl.reshape(score, [BQ, GROUPS, BN // GROUPS]), axis=2))
    g = tile * GROUPS + tl.arange(0, GROUPS)
    ok = (q < Q)[:, None] & (g < groups)[None, :]
    tl.store(out_ptr + q[:, None] * groups + g[None, :], best, mask=ok)


@triton.jit
def _scores(dots, query_scale, query_offset, scale_ptr, bias_ptr, mask_ptr, n, N):
    """Turn products [BN, BQ] of rows n [BN] into scores, -inf for rows that are masked or past N."""
    score = query_scale * dots.to(tl.float32)
    if query_offset is not None:
        score += query_offset
    there, bias = _bias_of_rows(bias_ptr, mask_ptr, n, N)
    if scale_ptr is not None:
        score *= tl.load(scale_ptr + n, mask=there, other=0.0)[:, None]
    return score + bias[:, None]


@triton.jit
def _store_best(out_ptr, best, tile, q, Q, groups, GROUPS: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr):
    """Store the maximum of each of the GROUPS of a tile's rows."""
    best = tl.max(tl.reshape(best, [GROUPS, BN // GROUPS, BQ]), axis=1)
    g = tile * GROUPS + tl.arange(0, GROUPS)
    ok = (g < groups)[:, None] & (q < Q)[None, :]
    tl.store(out_ptr + q[None, :] * groups + g[:, None], best, mask=ok)


@triton.jit(do_not_specialize=["N", "Q", "units", "q_tiles", "groups", "steps"])
def _scalar_scan(
    parts_ptr, offset_ptr, query_scale_ptr, query_offset_ptr, codes_ptr, scale_ptr, bias_ptr, mask_ptr,
    out_ptr, N, Q, units, q_tiles, groups, steps,
    UNIT: tl.constexpr, NBITS: tl.constexpr, G: tl.constexpr, CHUNKS: tl.constexpr,
    CB: tl.constexpr, BQ: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Scan `steps` tiles of rows: of one group, whose maxima are kept per row of a tile, or of several."""
    first = (tl.program_id(0) // q_tiles).to(tl.int64) * steps
    q = (tl.program_id(0) % q_tiles).to(tl.int64) * BQ + tl.arange(0, BQ)
    query_scale = tl.load(query_scale_ptr + q, mask=q < Q, other=0.0)[None, :]
    query_offset = None
    if query_offset_ptr is not None:
        query_offset = tl.load(query_offset_ptr + q, mask=q < Q, other=0.0)[None, :]
    offset = tl.load(offset_ptr + q)
    B = units * UNIT
    Bp = tl.cdiv(B, CB) * CB
    parts, b = parts_ptr + q * (Bp * (8 // NBITS)), tl.arange(0, CB)
    kept = ()
    for chunk in tl.static_range(CHUNKS):
        kept = kept + _of_queries(parts[:, None] + chunk * CB + b[None, :], Bp, NBITS)
    best = tl.full([BN, BQ], float("-inf"), tl.float32)
    for step in range(steps):
        n = (first + step) * BN + tl.arange(0, BN)
        dots = _dots(kept, parts, codes_ptr + n * B, n < N, offset, b, B, Bp, NBITS, CHUNKS, CB, BQ, BN)
        score = _scores(dots, query_scale, query_offset, scale_ptr, bias_ptr, mask_ptr, n, N)
        if G > BN:
            best = tl.maximum(best, score)
        else:
            _store_best(out_ptr, score, first + step, q, Q, groups, BN // G, BQ, BN)
    if G > BN:
        _store_best(out_ptr, best, tl.program_id(0).to(tl.int64) // q_tiles, q, Q, groups, 1, BQ, BN)


@triton.jit
def _split(queries_ptr, parts_ptr, offset_ptr, Q, D, PER: tl.constexpr, CB: tl.constexpr):
    q = tl.program_id(0).to(tl.int64)
    Bp = tl.cdiv(D, PER * CB) * CB
    query = queries_ptr + tl.minimum(q, Q - 1) * D  # past Q repeat the last
    for part in tl.static_range(PER):
        total = tl.zeros([CB], tl.int32)
        for b0 in range(0, Bp, CB):
            b = b0 + tl.arange(0, CB)
            d = b * PER + part
            value = tl.load(query + d, mask=d < D, other=0)
            tl.store(parts_ptr + (q * PER + part) * Bp + b, value)
            total += value.to(tl.int32)
    tl.store(offset_ptr + q, 128 * tl.sum(total))


def _parts(queries: Tensor, nbits: int, tile: Tile) -> tuple[Tensor, Tensor]:
    """Split (Q, D) int8 into (Q, 1 or 2, B padded to CB) int8, one part per code of a byte, and (Q,) offsets.

    Q is padded to whole tiles.
    """
    Q, D = queries.shape
    rows, per = triton.cdiv(Q, tile.BQ) * tile.BQ, 8 // nbits
    chunks = triton.cdiv(D, per * tile.CB)
    parts = torch.empty((rows, per, chunks * tile.CB), dtype=torch.int8, device=queries.device)
    offset = torch.empty(rows, dtype=torch.int32, device=queries.device)
    _split[(rows,)](queries, parts, offset, Q, D, PER=per, CB=tile.CB, num_warps=1)
    return parts, offset


def _sizes(tile: Tile, Q: int, B: int, nbits: int, group: int, groups: int) -> dict[str, int]:
    """Return arguments of both kernels by name. UNIT tells the compiler the alignment of rows."""
    UNIT = math.gcd(B, 16)
    return {
        "units": B // UNIT, "UNIT": UNIT, "q_tiles": triton.cdiv(Q, tile.BQ), "groups": groups,
        "steps": max(1, group // tile.BN), "G": group, "NBITS": nbits,
        "CB": tile.CB, "BQ": tile.BQ, "BN": tile.BN,
    }  # fmt: skip


def _several(N: int, rows: int, q_tiles: int) -> int:
    """Return the tiles per program, so that what it keeps serves 1,024 rows; fewer for few rows."""
    return max(1, min(1024 // rows, triton.cdiv(N, rows) * q_tiles // 2048))


def _launch_plain(tile, queries, nbits, group, query_scale, query_offset, codes, *rest):
    sizes = _sizes(tile, len(queries), codes.shape[1], nbits, group, rest[3].shape[1])
    parts, _ = _parts(queries, nbits, tile)
    _plain_scan[(triton.cdiv(len(codes), tile.BN * sizes["steps"]) * sizes["q_tiles"],)](
        parts, query_scale, query_offset, codes, *rest, **sizes, num_warps=4, enable_fp_fusion=False
    )


def _launch_products(tile, queries, nbits, group, query_scale, query_offset, codes, *rest):
    sizes = _sizes(tile, len(queries), codes.shape[1], nbits, group, rest[3].shape[1])
    parts, offset = _parts(queries, nbits, tile)
    kept = parts[0].numel() <= _KEPT and sizes["UNIT"] == 16
    limit = {"maxnreg": tile.registers} if tile.registers else {}
    if group <= tile.BN:
        sizes["steps"] = _several(len(codes), tile.BN, sizes["q_tiles"])
    _scalar_scan[(triton.cdiv(len(codes), tile.BN * sizes["steps"]) * sizes["q_tiles"],)](
        parts, offset, query_scale, query_offset, codes, *rest, **sizes,
        CHUNKS=parts.shape[2] // tile.CB if kept else 0,
        num_warps=4, num_stages=1, enable_fp_fusion=False, **limit,
    )  # fmt: skip


def scalar_scan(
    codes: Tensor, queries: Tensor, query_scale: Tensor, query_offset: Tensor | None,
    scale: Tensor | None, bias: Tensor | None, mask: Tensor | None, nbits: int, group: int,
    tile: Tile | None = None,
) -> Tensor:  # fmt: skip
    """Launch: (N, B) uint8, (Q, D) int8, (Q,) float32, (Q,), (N,), (N,) float32 or None, (N,) bool or None
    -> (Q, ceil(N/group)) float32."""
    (N, B), Q = codes.shape, len(queries)
    out = torch.empty((Q, triton.cdiv(N, group)), dtype=torch.float32, device=codes.device)
    if out.numel() == 0:
        return out
    codes, queries = codes.contiguous().view(torch.int8), queries.contiguous()
    query_offset, scale, bias = (None if t is None else t.contiguous() for t in (query_offset, scale, bias))
    mask = None if mask is None else mask.contiguous().view(torch.uint8)
    args = (query_scale.contiguous(), query_offset, codes, scale, bias, mask, out, N, Q)
    tile = tile or _tile(Q, B, nbits, group, compile_target())
    launch = _launch_products if tile.on_tensor_cores else _launch_plain
    launch_or(
        "_scalar_scan[int8 tensor cores]",
        lambda: launch(tile, queries, nbits, group, *args),
        lambda: _launch_plain(_plain_tile(Q), queries, nbits, group, *args),
    )
    return out
