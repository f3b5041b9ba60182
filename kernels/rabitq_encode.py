"""RaBitQ codes: the grid point whose direction is nearest a row's, and the sums that its factors are made of.

o = x[n] - center; cell(t) = min(floor(|o| * t), 2**(bits-1) - 1) for a stretch t of the grid, g = 2*cell + 1.
Of all stretches, coarse ones of 2**(bits-1) / max |o| and fine ones of the best of these, the first that has
the greatest <g, |o|>^2 / |g|^2, in float64, so that every device chooses alike. codes = 2**(bits-1) + cell,
or 2**(bits-1) - 1 - cell where o < 0; sums = |o|^2, sum |o|, <g, |o|>, |g|^2, <center, o>.
Layouts: x (N, D) float32|float16|bfloat16 with any row stride, center (D,), coarse (T,), fine (F,) float32 ->
codes (N, D) uint8, sums (N, 5) float32. Bytes moved: N*D*(itemsize + 1) + 20*N; a row is in registers while
all stretches are tried.
Source: Gao et al. 2024 (extended RaBitQ), whose sweep over all stretches this samples.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def _tile(D: int) -> tuple[int, int]:
    """(BD, warps): a row a program, 16 values a thread where it is long."""
    BD = max(32, triton.next_power_of_2(D))
    return BD, min(16, max(1, BD // 512))


@triton.jit
def _point(size, stretch, inside, TOP: tl.constexpr):
    """(cells, odd numbers as float64, 0 outside) of absolute values [BD]."""
    cell = tl.floor(tl.minimum(size * stretch, TOP))
    return cell, tl.where(inside, 2 * cell + 1, 0.0).to(tl.float64)


@triton.jit
def _cosine(size, stretch, inside, TOP: tl.constexpr):
    """The square of it, times that of the row's length."""
    odd = _point(size, stretch, inside, TOP)[1]
    dot = tl.sum(odd * size.to(tl.float64), axis=0)
    return dot * dot / tl.sum(odd * odd, axis=0)


@triton.jit
def _better(size, inside, middle, scales_ptr, T, best, chosen, TOP: tl.constexpr):
    for i in range(T):
        stretch = tl.minimum(middle * tl.load(scales_ptr + i), 8.507059173023462e37)  # 2**126
        cosine = _cosine(size, stretch, inside, TOP)
        chosen = tl.where(cosine > best, stretch, chosen)
        best = tl.maximum(best, cosine)
    return best, chosen


@triton.jit(do_not_specialize=["D", "T", "F"])
def _rabitq_encode(
    x_ptr, center_ptr, coarse_ptr, fine_ptr, codes_ptr, sums_ptr, D, T, F, stride_n,
    HALF: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    TOP: tl.constexpr = HALF - 1.0
    n = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BD)
    inside = d < D
    center = tl.load(center_ptr + d, mask=inside, other=0.0)
    x = tl.load(x_ptr + n * stride_n + d, mask=inside, other=0.0).to(tl.float32)
    offset = x - center
    size = tl.abs(offset)
    largest = tl.max(size, axis=0)
    stretch = tl.where(largest > 0, tl.div_rn(HALF * 1.0, tl.where(largest > 0, largest, 1.0)), 0.0)
    if HALF > 1:
        best = tl.full((), -1.0, tl.float64)
        best, chosen = _better(size, inside, stretch, coarse_ptr, T, best, stretch, TOP)
        best, stretch = _better(size, inside, chosen, fine_ptr, F, best, chosen, TOP)
    cell, odd = _point(size, stretch, inside, TOP)
    code = tl.where(offset >= 0, HALF + cell, TOP - cell)
    tl.store(codes_ptr + n * D + d, code.to(tl.int32).to(tl.uint8), mask=inside)
    wide = size.to(tl.float64)
    sums = sums_ptr + n * 5
    tl.store(sums, tl.sum(wide * wide, axis=0).to(tl.float32))
    tl.store(sums + 1, tl.sum(wide, axis=0).to(tl.float32))
    tl.store(sums + 2, tl.sum(odd * wide, axis=0).to(tl.float32))
    tl.store(sums + 3, tl.sum(odd * odd, axis=0).to(tl.float32))
    tl.store(sums + 4, tl.sum(center.to(tl.float64) * offset.to(tl.float64), axis=0).to(tl.float32))


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
