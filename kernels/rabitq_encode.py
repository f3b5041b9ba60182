"""RaBitQ codes: the grid point whose direction is nearest to a row's, and the sums for its factors.

o = x[n] - center; cell(t) = min(floor(|o| * t), 2**(bits-1) - 1) for a stretch (scale) t of the grid, and
g = 2*cell + 1. Coarse stretches are multiples of 2**(bits-1) / max |o|, fine ones multiples of the best
coarse one. The first stretch with the greatest <g, |o|>^2 / |g|^2 wins, compared to 46 bits, so that every
device chooses the same. codes = 2**(bits-1) + cell, or 2**(bits-1) - 1 - cell if o < 0; sums = |o|^2, sum
|o|, <g, |o|>, |g|^2, <center, o>.
Layouts: x (N, D) float32|float16|bfloat16 with any row stride, center (D,), coarse (T,), fine (F,) float32 ->
codes (N, D) uint8, sums (N, 5) float32.
Bytes moved: N*D*(itemsize + 1) + 20*N; a row is read twice, and stays in registers while stretches are tried.
Source: Gao et al. 2024 (extended RaBitQ), which tries all stretches; this tries a sample.
Ladder, at D=384 fp32 and 4 bits, modelled: 1. one row per program, read from L1 for each stretch, all sums in
float64: conversions and floors run at an eighth of the rate of sums, 17 ns per row. 2. (here) rows in
registers, 8 or more lanes per row. Stretches are compared in float32, and again in pairs of float32 if that
is not decisive. A floor is two additions: 4 ns, half of it for 6 instructions per value and stretch. Fewer
would need the cells of two values at a time, and fp16 has too few bits for that.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import libdevice

from ._launch import compile_target


def _tile(D: int, target: str = "") -> tuple[int, int, int]:
    """Return (BN, BD, warps): rows and values of each per step, 4 per lane, up to 48 of a row per lane.

    With 64 per lane some version of triton spills; on sm_80 also with 4 values of a wide row per step.
    """
    wide = min(4096, triton.next_power_of_2(triton.cdiv(D, 12 if D <= 8192 else 8)))
    sizes = ((4, 32, 1), (2, 64, 1), (1, 128, 1), (1, wide, wide // (64 if target == "cuda 80" else 128)))
    return next((size for size in sizes if 12 * size[1] >= D), sizes[-1])


@triton.jit
def _offset(rows, center_ptr, d, inside, D):
    """Return x - center and center, read per row so that both have one layout; 0 where masked."""
    there = inside & (d < D)
    center = tl.load(center_ptr + tl.broadcast_to(d, there.shape), mask=there, other=0.0)
    return tl.load(rows + d, mask=there, other=0.0).to(tl.float32) - center, center


@triton.jit
def _sizes(rows, center_ptr, inside, D, BD: tl.constexpr, CHUNKS: tl.constexpr):
    """Return |o| as CHUNKS of [BN, BD], 0 past the end of the row."""
    found = ()
    for i in tl.static_range(CHUNKS):
        d = i * BD + tl.arange(0, BD)[None, :]
        offset, _ = _offset(rows, center_ptr, d, inside, D)
        found = found + (tl.abs(offset),)
    return found


@triton.jit
def _scaled(sizes, CHUNKS: tl.constexpr):
    """Scale sizes by a power of two that brings a row's largest to 1..4; return it, its inverse, the largest.

    Only values that vanish beside the largest are rounded.
    """
    largest = sizes[0]
    for i in tl.static_range(1, CHUNKS):
        largest = tl.maximum(largest, sizes[i])
    largest = tl.max(largest, axis=1)[:, None]
    exponent = tl.minimum(tl.maximum(254 - (largest.to(tl.int32, bitcast=True) >> 23), 1), 253)
    scale = (exponent << 23).to(tl.float32, bitcast=True)
    found = ()
    for i in tl.static_range(CHUNKS):
        found = found + (sizes[i] * scale,)
    return found, ((254 - exponent) << 23).to(tl.float32, bitcast=True), largest


@triton.jit
def _middle(size, stretch, TOP: tl.constexpr, DOWN: tl.constexpr):
    """Return cell + 1/2 of absolute values. Sums near 2**23 round to integers, down or to nearest."""
    v = tl.minimum(size * stretch, TOP)
    if DOWN:
        return libdevice.add_rd(v, 8388608.0) - 8388607.5
    near = (v + 8388608.0) - 8388608.0
    return tl.where(v >= near, near + 0.5, near - 0.5)


@triton.jit
def _cosine(sizes, stretch, outside, TOP: tl.constexpr, CHUNKS: tl.constexpr, DOWN: tl.constexpr):
    """Return the squared cosine times a constant of the row, in float32. outside: values past its end."""
    dot, square = tl.zeros_like(sizes[0]), tl.zeros_like(sizes[0])
    for i in tl.static_range(CHUNKS):
        middle = _middle(sizes[i], stretch, TOP, DOWN)
        dot = tl.fma(middle, sizes[i], dot)
        square = tl.fma(middle, middle, square)
    total = tl.sum(dot, axis=1)[:, None]
    return total * total / (tl.sum(square, axis=1)[:, None] - 0.25 * outside)


@triton.jit
def _exact_cosine(sizes, stretch, outside, TOP: tl.constexpr, CHUNKS: tl.constexpr, DOWN: tl.constexpr):
    """Return the same to 46 bits, by float32 products and sums with their rounding errors."""
    dot, rest, square = tl.zeros_like(sizes[0]), tl.zeros_like(sizes[0]), tl.zeros_like(sizes[0])
    for i in tl.static_range(CHUNKS):
        middle = _middle(sizes[i], stretch, TOP, DOWN)
        product = middle * sizes[i]
        more = dot + product
        part = more - dot
        rest += tl.fma(middle, sizes[i], -product) + ((dot - (more - part)) + (product - part))
        dot = more
        square = tl.fma(middle, middle, square)  # exact for 8 bits and up to 1000 chunks
    total = tl.sum(dot.to(tl.float64) + rest.to(tl.float64), axis=1)[:, None]
    return total * total / (tl.sum(square.to(tl.float64), axis=1)[:, None] - 0.25 * outside)


@triton.jit
def _better(
    sizes, scales_ptr, T, middle, best, chosen, unscale, outside,
    TOP: tl.constexpr, CHUNKS: tl.constexpr, DOWN: tl.constexpr,
):  # fmt: skip
    """Return the first stretch with the greatest cosine, and that cosine in float32."""
    doubt = 1.2e-7 * (3 * CHUNKS + 42)  # bound for the error of two cosines together
    for i in range(T):
        stretch = tl.minimum(middle * tl.load(scales_ptr + i), 8.507059173023462e37)  # 2**126
        cosine = _cosine(sizes, stretch * unscale, outside, TOP, CHUNKS, DOWN)
        greater = cosine > best
        close = (tl.abs(cosine - best) <= doubt * best) & (best > 0)
        if tl.max(tl.max(close.to(tl.int32), axis=1), axis=0) > 0:
            other = tl.zeros_like(best).to(tl.float64)
            one = other
            for j in range(2):  # a loop, so that values of the float32 cosine need not stay in registers
                tried = tl.where(j == 0, chosen, stretch)
                other = one
                one = _exact_cosine(sizes, tried * unscale, outside, TOP, CHUNKS, DOWN)
            greater = (close & (one > other)) | (~close & greater)
        chosen = tl.where(greater, stretch, chosen)
        best = tl.where(greater, cosine, best)
    return best, chosen


@triton.jit(do_not_specialize=["N", "T", "F"])
def _rabitq_encode(
    x_ptr, center_ptr, coarse_ptr, fine_ptr, codes_ptr, sums_ptr, N, D, T, F, stride_n,
    HALF: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr, CHUNKS: tl.constexpr, DOWN: tl.constexpr,
):  # fmt: skip
    TOP: tl.constexpr = HALF - 1.0
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)[:, None]
    inside = n < N
    rows = x_ptr + n * stride_n
    sizes, unscale, largest = _scaled(_sizes(rows, center_ptr, inside, D, BD, CHUNKS), CHUNKS)
    # stretch that puts the row's largest value on the edge of the grid; 0 if all are 0
    stretch = tl.where(largest > 0, tl.div_rn(HALF * 1.0, tl.where(largest > 0, largest, 1.0)), 0.0)
    if HALF > 1:
        outside = CHUNKS * BD - D
        best = tl.full([BN, 1], -1.0, tl.float32)
        best, chosen = _better(
            sizes, coarse_ptr, T, stretch, best, stretch, unscale, outside, TOP, CHUNKS, DOWN
        )
        best, stretch = _better(sizes, fine_ptr, F, chosen, best, chosen, unscale, outside, TOP, CHUNKS, DOWN)
    square, total = tl.zeros([BN, BD], tl.float64), tl.zeros([BN, BD], tl.float64)
    dot, onto = tl.zeros([BN, BD], tl.float64), tl.zeros([BN, BD], tl.float64)
    points = tl.zeros([BN, BD], tl.float32)
    for i in tl.static_range(CHUNKS):
        d = i * BD + tl.arange(0, BD)[None, :]
        offset, center = _offset(rows, center_ptr, d, inside, D)
        middle = _middle(tl.abs(offset), stretch, TOP, DOWN)
        code = tl.where(offset >= 0, middle, -middle) + (HALF - 0.5)
        tl.store(codes_ptr + n * D + d, code.to(tl.int32).to(tl.uint8), mask=inside & (d < D))
        wide, odd = tl.abs(offset).to(tl.float64), tl.where(d < D, 2 * middle, 0.0)
        square = tl.fma(wide, wide, square)
        total += wide
        dot = tl.fma(odd.to(tl.float64), wide, dot)
        points = tl.fma(odd, odd, points)  # exact
        onto = tl.fma(center.to(tl.float64), offset.to(tl.float64), onto)
    sums = sums_ptr + n * 5
    _put(sums, square, inside)
    _put(sums + 1, total, inside)
    _put(sums + 2, dot, inside)
    _put(sums + 3, points.to(tl.float64), inside)
    _put(sums + 4, onto, inside)


@triton.jit
def _put(at, part, inside):
    tl.store(at, tl.sum(part, axis=1)[:, None].to(tl.float32), mask=inside)


def rabitq_encode(
    x: Tensor,
    center: Tensor,
    coarse: Tensor,
    fine: Tensor,
    bits: int,
    tile: tuple[int, int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Launch: (N, D), (D,) float32, (T,) float32, (F,) float32, bits 1..8 -> (N, D) uint8, (N, 5) float32."""
    N, D = x.shape
    codes = torch.empty((N, D), dtype=torch.uint8, device=x.device)
    sums = torch.empty((N, 5), dtype=torch.float32, device=x.device)
    if N == 0:
        return codes, sums
    x = x if x.stride(1) == 1 else x.contiguous()
    coarse, fine = coarse.contiguous(), fine.contiguous()
    BN, BD, warps = tile or _tile(D, compile_target())
    # only NVIDIA has an instruction that rounds down
    down = compile_target().startswith("cuda")
    _rabitq_encode[(triton.cdiv(N, BN),)](
        x, center.contiguous(), coarse, fine, codes, sums, N, D, len(coarse), len(fine), x.stride(0),
        HALF=1 << (bits - 1), BN=BN, BD=BD, CHUNKS=triton.cdiv(D, BD), DOWN=down,
        num_warps=warps, enable_fp_fusion=False,
    )  # fmt: skip
    return codes, sums
