"""Sums and counts of the vectors of every centroid: the other half of a step of k-means.

sums[m, k] = sum of x[n, m*S:(m+1)*S] over the n with labels[n, m] == k; counts[m, k] = how many there are.
Layouts: x (N, M*S) with any row stride, labels (N, M) -> sums (M, K, S) float32, counts (M, K) int32.
Bytes moved: N*D*4 and N*M*(1 or 4) in (again, from L2, for every BK centroids), P*(D + M)*K*4 out and in.
Source: Lloyd, "Least squares quantization in PCM" (1982); the update as a product with one-hot labels.
Ladder: 1. P parts of the rows, a one-hot fp32 product in each, then the parts added in order (here): no
atomics, and P comes from shapes alone. 2. one kernel with assign, the product on tensor cores in fp16 halves:
to do.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BN = 32  # rows a step


def _parts(N: int, D: int, K: int, BN: int = _BN) -> tuple[int, int]:
    """(P, T): P parts of T steps of BN rows, from the shapes alone, so that every device adds in one order.

    A part holds 1024 rows or more, and at most 2**23, so that float32 counts them; there are at most 128
    otherwise, and fewer where partials would pass 256 MiB.
    """
    P = max(1, min(triton.cdiv(N, 1024), 128, 2**26 // (D * K)), triton.cdiv(N, 2**23))
    T = triton.cdiv(triton.cdiv(N, P), BN)
    return triton.cdiv(N, T * BN), T


def _tile(K: int, S: int) -> tuple[int, int]:
    """(BK, BS): 16 is the least that tl.dot takes, and 64 by 32 spill on sm_100."""
    return (16 if K <= 16 else 32), (16 if S <= 16 else 32)


@triton.jit(do_not_specialize=["N", "M", "K", "T", "s_tiles"])
def _part_sums(
    x_ptr, labels_ptr, sums_ptr, counts_ptr, N, M, K, S, stride_n, T, s_tiles,
    BN: tl.constexpr, BK: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    m = tl.program_id(1)
    p = tl.program_id(2).to(tl.int64)
    k = tile // s_tiles * BK + tl.arange(0, BK)
    s = tile % s_tiles * BS + tl.arange(0, BS)
    sums = tl.zeros([BK, BS], tl.float32)
    counts = tl.zeros([BK], tl.int32)
    for t in range(T):
        n = (p * T + t) * BN + tl.arange(0, BN)
        label = tl.load(labels_ptr + n * M + m, mask=n < N, other=0).to(tl.int32)
        hit = (label[None, :] == k[:, None]) & (n[None, :] < N)  # [BK, BN]
        where = (n[:, None] < N) & (s[None, :] < S)
        x = tl.load(x_ptr + n[:, None] * stride_n + (m * S + s)[None, :], mask=where, other=0.0)  # [BN, BS]
        sums = tl.dot(tl.where(hit, 1.0, 0.0), x, sums, input_precision="ieee")
        counts += tl.sum(hit.to(tl.int32), axis=1)
    row = (p * M + m) * K + k  # [BK]
    tl.store(sums_ptr + row[:, None] * S + s[None, :], sums, mask=(k[:, None] < K) & (s[None, :] < S))
    tl.store(counts_ptr + row, counts, mask=k < tl.where(tile % s_tiles == 0, K, 0))  # once for all s tiles


@triton.jit(do_not_specialize=["P"])
def _add_parts(parts_ptr, out_ptr, P, E, BE: tl.constexpr):
    e = tl.program_id(0).to(tl.int64) * BE + tl.arange(0, BE)
    part = parts_ptr + e
    total = tl.zeros([BE], parts_ptr.dtype.element_ty)
    for _ in range(P):
        total += tl.load(part, mask=e < E, other=0)
        part += E
    tl.store(out_ptr + e, total, mask=e < E)


def _add(parts: Tensor) -> Tensor:
    """The sum over the first axis, in order."""
    if len(parts) == 1:
        return parts[0]
    out = torch.empty_like(parts[0])
    E = out.numel()
    _add_parts[(triton.cdiv(E, 512),)](parts, out, len(parts), E, BE=512, num_warps=4, enable_fp_fusion=False)
    return out


def centroid_sums(x: Tensor, labels: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """Launch: (N, M*S) float32, (N, M) uint8|int32 -> (M, K, S) float32, (M, K) int32."""
    (N, D), M = x.shape, labels.shape[1]
    S = D // M
    if N == 0:
        zeros = torch.zeros((M, K, S), dtype=torch.float32, device=x.device)
        return zeros, torch.zeros((M, K), dtype=torch.int32, device=x.device)
    x = x if x.stride(1) == 1 else x.contiguous()
    (P, T), (BK, BS) = _parts(N, D, K), _tile(K, S)
    sums = torch.empty((P, M, K, S), dtype=torch.float32, device=x.device)
    counts = torch.empty((P, M, K), dtype=torch.int32, device=x.device)
    s_tiles = triton.cdiv(S, BS)
    grid = (triton.cdiv(K, BK) * s_tiles, M, P)
    _part_sums[grid](
        x, labels.contiguous(), sums, counts, N, M, K, S, x.stride(0), T, s_tiles,
        BN=_BN, BK=BK, BS=BS, num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    return _add(sums), _add(counts)
