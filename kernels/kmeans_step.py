"""A step of k-means without labels: nearest centroids, and the sums and counts of their rows, in one pass.

sums[m, k] = sum of x[n, m*S:(m+1)*S] over the n whose nearest centroid (see assign.py) is k; counts[m, k] =
how many there are.
Layouts: x (N, M*S) float32 with any row stride, centroids (M, K, S) -> sums (M, K, S) float32, counts (M, K)
int32.
Bytes moved: N*D*4 in, P*(D + M)*K*4 out and in again; the centroids, M*K*8*S bytes as halves, stay in cache.
Source: Lloyd, "Least squares quantization in PCM" (1982); the update as a product with one-hot labels.
Ladder: 1. `assign`, then `centroid_sums` (the simple form, and that of large K*S). 2. the labels of a tile of
rows become a one-hot matrix, and its product with [hi, mid, lo, 1] on the matrix units the tile's sums and
counts (here): x = hi + mid + lo in bfloat16 holds all 24 digits in any range, and products with 0 and 1 are
exact. No atomics: P parts, from shapes alone, are added in order, and a part is short because matrix units
round sums towards zero. The four slots of a dimension are four loads of it: rearranging one load (as assign
does) does not compile for Blackwell where it meets the one-hot product. Left: halves of a row's own scale
cannot be added across rows.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._halves import halves_of_slots, halves_table, padded
from ._launch import compile_target, launch_or
from .assign import assign, least, load_table
from .centroid_sums import _add, _parts, centroid_sums


class Tile(NamedTuple):
    """BN rows by BC of the BK centroids a product of scores; BK holds all of them."""

    BN: int
    BK: int
    BC: int
    warps: int


def _tile(K: int, S: int, target: str = "") -> Tile:
    """64 rows where 128 spill, or where their one-hot passes AMD's 64 KiB; 128 of 256 centroids so too."""
    BK = max(16, triton.next_power_of_2(K))
    large = BK * padded(S) >= 1024 or (S > 8 and BK == 16)
    BN = 64 if large or target.startswith("hip") else 128
    return Tile(BN, BK, min(BK, 128), 8 if BK > 64 or S > 8 else 4)


def part_type() -> tl.dtype:
    """bfloat16; the interpreter multiplies its bits as integers, so there the same values in float32."""
    return tl.float32 if compile_target() == "interpreter" else tl.bfloat16


def _is_fused(K: int, S: int) -> bool:
    """Whether scores and sums fit in registers side by side."""
    return K <= 256 and S <= 16 and padded(S) * triton.next_power_of_2(K) <= 2048


@triton.jit
def add_by_label(total, x, label, BK: tl.constexpr, SP: tl.constexpr, PART: tl.constexpr):
    """Add to (BK, 4*SP) the sums by label of hi, mid, lo and 1 of x, which has each dimension four times."""
    j = tl.arange(0, 4 * SP)[None, :]
    hi = x.to(tl.bfloat16).to(tl.float32)
    mid = (x - hi).to(tl.bfloat16).to(tl.float32)
    part = tl.where(j % 4 == 0, hi, tl.where(j % 4 == 1, mid, tl.where(j % 4 == 2, x - hi - mid, 1.0)))
    hot = tl.where(tl.arange(0, BK)[:, None] == label[None, :], 1.0, 0.0)
    return tl.dot(hot.to(PART), part.to(PART), total, input_precision="ieee")


@triton.jit
def sums_and_counts(parts, BK: tl.constexpr, SP: tl.constexpr):
    """(BK, 4*SP) -> (BK, SP) float32, (BK,) int32."""
    hi_lo, mid_one = tl.split(tl.reshape(parts, (BK, SP, 2, 2)))  # slot 2i + j is [.., i, j]
    hi, lo = tl.split(hi_lo)
    mid, ones = tl.split(mid_one)
    return hi + (mid + lo), tl.max(ones, axis=1).to(tl.int32)


@triton.jit(do_not_specialize=["N", "M", "K", "T"])
def _step(
    x_ptr, table_ptr, shift_ptr, exponent_ptr, sums_ptr, counts_ptr, N, M, K, T, stride_n,
    S: tl.constexpr, SP: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BC: tl.constexpr,
    PART: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0) % M
    p = (tl.program_id(0) // M).to(tl.int64)
    j = tl.arange(0, 4 * SP)[None, :]
    own = table_ptr + m.to(tl.int64) * BK * (4 * SP)
    shift = tl.load(shift_ptr + m * SP + j // 4)
    exponent = tl.load(exponent_ptr + m)
    total = tl.zeros([BK, 4 * SP], tl.float32)
    for t in range(T):
        n = (p * T + t) * BN + tl.arange(0, BN)
        where = (n[:, None] < N) & (j // 4 < S)
        x = tl.load(x_ptr + n[:, None] * stride_n + (m * S + j // 4), mask=where, other=0.0)
        rows, _, _ = halves_of_slots(tl.where(j // 4 < S, x - shift, 0.0), exponent, SP)
        best = tl.full([BN], float("inf"), tl.float32)
        label = tl.zeros([BN], tl.int32)
        for k0 in tl.static_range(0, BK, BC):
            low, first, _ = least(tl.dot(rows, load_table(own, k0, BC, SP)), k0 + tl.arange(0, BC), K, False)
            label = tl.where(low < best, first, label)  # strict: an earlier tile keeps a tie
            best = tl.minimum(best, low)
        label = tl.where(n < N, tl.minimum(label, K - 1), -1)  # padded columns may round below the last
        total = add_by_label(total, x, label, BK, SP, PART)
    sums, counts = sums_and_counts(total, BK, SP)
    s = tl.arange(0, SP)
    k = tl.arange(0, BK)
    row = (p * M + m) * K + k  # [BK]
    tl.store(sums_ptr + row[:, None] * S + s[None, :], sums, mask=(k[:, None] < K) & (s[None, :] < S))
    tl.store(counts_ptr + row, counts, mask=k < K)


def kmeans_step(x: Tensor, centroids: Tensor, tile: Tile | None = None) -> tuple[Tensor, Tensor]:
    """Launch: (N, M*S) float32, (M, K, S) float32 -> (M, K, S) float32, (M, K) int32."""
    (N, D), (M, K, S) = x.shape, centroids.shape
    x = x if x.stride(1) == 1 else x.contiguous()

    def fused() -> tuple[Tensor, Tensor]:
        chosen = tile or _tile(K, S, compile_target())
        P, T = _parts(N, D, K, chosen.BN)
        table, shift, exponent = halves_table(centroids, chosen.BK)
        sums = torch.empty((P, M, K, S), dtype=torch.float32, device=x.device)
        counts = torch.empty((P, M, K), dtype=torch.int32, device=x.device)
        _step[(P * M,)](
            x, table, shift, exponent, sums, counts, N, M, K, T, x.stride(0), S=S, SP=padded(S),
            BN=chosen.BN, BK=chosen.BK, BC=chosen.BC, PART=part_type(),
            num_warps=chosen.warps, num_stages=1, enable_fp_fusion=False,
        )  # fmt: skip
        return _add(sums), _add(counts)

    def in_two() -> tuple[Tensor, Tensor]:
        return centroid_sums(x, assign(x, centroids), K)

    if N == 0 or not _is_fused(K, S):
        return in_two()
    return launch_or("kmeans_step[fused]", fused, in_two)
