"""RaBitQ codes: the grid point whose direction is nearest a row's, and the sums that its factors are made of.

o = x[n] - center; cell(t) = min(floor(|o| * t), 2**(bits-1) - 1) for a stretch t of the grid, g = 2*cell + 1.
Of all stretches, coarse ones of 2**(bits-1) / max |o| and fine ones of the best of these, the first that has
the greatest <g, |o|>^2 / |g|^2, in float64, so that every device chooses alike. codes = 2**(bits-1) + cell,
or 2**(bits-1) - 1 - cell where o < 0; sums = |o|^2, sum |o|, <g, |o|>, |g|^2, <center, o>.
Layouts: x (N, D) float32|float16|bfloat16 with any row stride, center (D,), coarse (T,), fine (F,) float32 ->
codes (N, D) uint8, sums (N, 5) float32. Bytes moved: N*D*(itemsize + 1) + 20*N; a row is in L1 while all
stretches are tried.
Source: Gao et al. 2024 (extended RaBitQ), whose sweep over all stretches this samples.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def _tile(D: int) -> tuple[int, int]:
    """(BD, warps): a row a program, up to 1024 values at a time, 8 a thread where there are many."""
    BD = min(1024, max(32, triton.next_power_of_2(D)))
    return BD, max(1, BD // 256)


@triton.jit
def _offset(row_ptr, center_ptr, d, inside):
    x = tl.load(row_ptr + d, mask=inside, other=0.0).to(tl.float32)
    return x - tl.load(center_ptr + d, mask=inside, other=0.0)


@triton.jit
def _odd(size, stretch, inside, TOP: tl.constexpr):
    """2 * cell + 1 of absolute values, 0 outside."""
    return tl.where(inside, 2 * tl.floor(tl.minimum(size * stretch, TOP)) + 1, 0.0)


@triton.jit
def _cosine(row_ptr, center_ptr, D, stretch, TOP: tl.constexpr, BD: tl.constexpr):
    """The square of it, times that of the row's length."""
    dot, square = tl.zeros([BD], tl.float64), tl.zeros([BD], tl.float64)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        size = tl.abs(_offset(row_ptr, center_ptr, d, d < D))
        odd = _odd(size, stretch, d < D, TOP).to(tl.float64)
        dot += odd * size.to(tl.float64)
        square += odd * odd
    total = tl.sum(dot, axis=0)
    return total * total / tl.sum(square, axis=0)


@triton.jit
def _better(
    row_ptr, center_ptr, scales_ptr, D, T, middle, best, chosen, TOP: tl.constexpr, BD: tl.constexpr
):  # fmt: skip
    for i in range(T):
        stretch = tl.minimum(middle * tl.load(scales_ptr + i), 8.507059173023462e37)  # 2**126
        cosine = _cosine(row_ptr, center_ptr, D, stretch, TOP, BD)
        chosen = tl.where(cosine > best, stretch, chosen)
        best = tl.maximum(best, cosine)
    return best, chosen


@triton.jit
def _edge(row_ptr, center_ptr, D, HALF: tl.constexpr, BD: tl.constexpr):
    """The stretch that puts the row's largest value on the edge of the grid; 0 where all are 0."""
    largest = tl.zeros([BD], tl.float32)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        largest = tl.maximum(largest, tl.abs(_offset(row_ptr, center_ptr, d, d < D)))
    most = tl.max(largest, axis=0)
    return tl.where(most > 0, tl.div_rn(HALF * 1.0, tl.where(most > 0, most, 1.0)), 0.0)


@triton.jit(do_not_specialize=["D", "T", "F"])
def _rabitq_encode(
    x_ptr, center_ptr, coarse_ptr, fine_ptr, codes_ptr, sums_ptr, D, T, F, stride_n,
    HALF: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    TOP: tl.constexpr = HALF - 1.0
    n = tl.program_id(0).to(tl.int64)
    row_ptr = x_ptr + n * stride_n
    stretch = _edge(row_ptr, center_ptr, D, HALF, BD)
    if HALF > 1:
        best = tl.full((), -1.0, tl.float64)
        best, chosen = _better(row_ptr, center_ptr, coarse_ptr, D, T, stretch, best, stretch, TOP, BD)
        best, stretch = _better(row_ptr, center_ptr, fine_ptr, D, F, chosen, best, chosen, TOP, BD)
    square, total = tl.zeros([BD], tl.float64), tl.zeros([BD], tl.float64)
    dot, points, onto = tl.zeros([BD], tl.float64), tl.zeros([BD], tl.float64), tl.zeros([BD], tl.float64)
    for start in range(0, D, BD):
        d = start + tl.arange(0, BD)
        offset = _offset(row_ptr, center_ptr, d, d < D)
        odd = _odd(tl.abs(offset), stretch, d < D, TOP)
        code = HALF + 0.5 * tl.where(offset >= 0, odd - 1, -odd - 1)
        tl.store(codes_ptr + n * D + d, code.to(tl.int32).to(tl.uint8), mask=d < D)
        wide, odd = tl.abs(offset).to(tl.float64), odd.to(tl.float64)
        center = tl.load(center_ptr + d, mask=d < D, other=0.0)
        square += wide * wide
        total += wide
        dot += odd * wide
        points += odd * odd
        onto += center.to(tl.float64) * offset.to(tl.float64)
    sums = sums_ptr + n * 5
    tl.store(sums, tl.sum(square, axis=0).to(tl.float32))
    tl.store(sums + 1, tl.sum(total, axis=0).to(tl.float32))
    tl.store(sums + 2, tl.sum(dot, axis=0).to(tl.float32))
    tl.store(sums + 3, tl.sum(points, axis=0).to(tl.float32))
    tl.store(sums + 4, tl.sum(onto, axis=0).to(tl.float32))


def rabitq_encode(
    x: Tensor, center: Tensor, coarse: Tensor, fine: Tensor, bits: int, tile: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Launch: (N, D), (D,) float32, (T,) float32, (F,) float32, bits 1..8 -> (N, D) uint8, (N, 5) float32."""
    N, D = x.shape
    codes = torch.empty((N, D), dtype=torch.uint8, device=x.device)
    sums = torch.empty((N, 5), dtype=torch.float32, device=x.device)
    if N == 0:
        return codes, sums
    x = x if x.stride(1) == 1 else x.contiguous()
    coarse, fine = coarse.contiguous(), fine.contiguous()
    BD, warps = tile or _tile(D)
    _rabitq_encode[(N,)](
        x, center.contiguous(), coarse, fine, codes, sums, D, len(coarse), len(fine), x.stride(0),
        HALF=1 << (bits - 1), BD=BD, num_warps=warps, enable_fp_fusion=False,
    )  # fmt: skip
    return codes, sums
