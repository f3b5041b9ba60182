"""Sums and counts of the rows of every centroid, the second half of a step of k-means.

sums[m, k] = sum of x[n, m*S:(m+1)*S] over the n with labels[n, m] == k; counts[m, k] = their number.
Values become integers, x * 2**e, which are added atomically. Sums of integers do not depend on the order, so
they repeat bit for bit. Each column has its own e, chosen so that N times its largest value stays within
2**62. The fraction of x * 2**e, if any, is a second integer: with 2**b rows, a value loses digits only below
2**(2*b - 100) of the largest in its column. Inf or NaN in a column spreads to all sums of that column.
Layouts: x (N, M*S) with any row stride, labels (N, M), reach (M*S,) the largest |x| of each column -> sums
(M, K, S) float32, counts (M, K) int32.
Bytes moved: N*D*4 and N*M*(1 or 4) in, N*D*8 and N*M*4 of additions, in L2 if the sums fit there.
Source: Lloyd, "Least squares quantization in PCM" (1982).
Ladder: 1. P parts of the rows, a one-hot fp32 product for each, then a sum of the parts in order: N*D*K
operations, 2.1 ms at N=65,536, M=48, K=256 on an H200. 2. the same product on the matrix units, after the
scores of `kmeans_step`: 1.6 ms with them, mostly for the one-hot operand, written 2 bytes at a time. 3.
(here) atomic additions of integers: N*D additions for any K.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._halves import exponent_of, power_of_two


def _tile(D: int) -> tuple[int, int]:
    """Return (BN, BD): 1024 values of at most 128 columns."""
    BD = min(max(16, triton.next_power_of_2(D)), 128)
    return 1024 // BD, BD


@triton.jit
def _exponents(reach, bits):
    """Return float32 a and b such that a * b = 2**e scales values up to reach below 2**(62 - bits)."""
    e = tl.minimum(tl.maximum(188 - bits - exponent_of(reach), -252), 252)  # reach < 2**(exponent - 126)
    return e >> 1, e - (e >> 1)


@triton.jit
def whole_parts(x, reach, bits):
    """Split x * 2**e into its integer part and its fraction times 2**(62 - bits); 0 past float32."""
    a, b = _exponents(reach, bits)
    size = tl.abs(x) * power_of_two(a + 127) * power_of_two(b + 127)
    size = tl.where(reach < float("inf"), size, 0.0)
    floor = tl.floor(size)
    whole, rest = floor.to(tl.int64), ((size - floor) * power_of_two(189 - bits)).to(tl.int64)
    return tl.where(x < 0, -whole, whole), tl.where(x < 0, -rest, rest)


@triton.jit
def from_parts(whole, rest, reach, bits):
    """Convert sums of integer parts and of fractions to float32; inf or NaN in a column that holds it."""
    a, b = _exponents(reach, bits)
    total = whole.to(tl.float32) + rest.to(tl.float32) * power_of_two(65 + bits)
    return tl.where(reach < float("inf"), total * power_of_two(127 - b) * power_of_two(127 - a), reach)


@triton.jit(do_not_specialize=["N", "M", "K", "E", "bits"])
def _add_rows(
    x_ptr, labels_ptr, reach_ptr, sums_ptr, counts_ptr, N, M, K, E, stride_n, bits,
    S: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    t = tl.arange(0, BN * BD)  # rows and columns on one axis, columns fastest: a warp shares a row
    n = tl.program_id(0).to(tl.int64) * BN + t // BD
    d = tl.program_id(1) * BD + t % BD
    m = d // S
    there = (n < N) & (m < M)
    x = tl.load(x_ptr + n * stride_n + d, mask=there, other=0.0)
    cell = m.to(tl.int64) * K + tl.load(labels_ptr + n * M + m, mask=there, other=0).to(tl.int32)
    reach = tl.load(reach_ptr + d, mask=there, other=0.0)
    whole, rest = whole_parts(x, reach, bits)
    sums_ptr += cell * S + (d - m * S)
    tl.atomic_add(sums_ptr, whole, mask=there, sem="relaxed")
    tl.atomic_add(sums_ptr + E, rest, mask=there & (rest != 0), sem="relaxed")  # rarely any fraction
    tl.atomic_add(counts_ptr + cell, 1, mask=there & (d == m * S), sem="relaxed")


@triton.jit(do_not_specialize=["K", "E", "bits"])
def _to_floats(whole_ptr, reach_ptr, sums_ptr, K, E, bits, S: tl.constexpr, BE: tl.constexpr):
    e = tl.program_id(0).to(tl.int64) * BE + tl.arange(0, BE)
    d = e // (K.to(tl.int64) * S) * S + e % S
    reach = tl.load(reach_ptr + d, mask=e < E, other=0.0)
    whole = tl.load(whole_ptr + e, mask=e < E, other=0)
    rest = tl.load(whole_ptr + E + e, mask=e < E, other=0)
    tl.store(sums_ptr + e, from_parts(whole, rest, reach, bits), mask=e < E)


def column_reach(x: Tensor) -> Tensor:
    """Return the largest |x| of each column: (N, D) -> (D,) float32."""
    return torch.linalg.vector_norm(x, float("inf"), dim=0)


def centroid_sums(x: Tensor, labels: Tensor, K: int, reach: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Launch: (N, M*S) float32, (N, M) uint8|int32 -> (M, K, S) float32, (M, K) int32.

    reach: `column_reach` of x, if known.
    """
    (N, D), M = x.shape, labels.shape[1]
    S = D // M
    whole = torch.zeros((2, M, K, S), dtype=torch.int64, device=x.device)
    counts = torch.zeros((M, K), dtype=torch.int32, device=x.device)
    sums = torch.zeros((M, K, S), dtype=torch.float32, device=x.device)
    if N == 0:
        return sums, counts
    x = x if x.stride(1) == 1 else x.contiguous()
    reach, bits, (BN, BD) = column_reach(x) if reach is None else reach, N.bit_length(), _tile(D)
    _add_rows[(triton.cdiv(N, BN), triton.cdiv(D, BD))](
        x, labels.contiguous(), reach, whole, counts, N, M, K, M * K * S, x.stride(0), bits,
        S=S, BN=BN, BD=BD, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    _to_floats[(triton.cdiv(sums.numel(), 512),)](
        whole, reach, sums, K, sums.numel(), bits, S=S, BE=512, num_warps=4, enable_fp_fusion=False
    )
    return sums, counts
