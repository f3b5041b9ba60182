"""Nearest centroid in every subspace: the encoder of product quantization, and half a step of k-means.

label[n, m] = argmin_k sum_s (x[n, m*S + s] - c[m, k, s])**2, the lowest k on ties, in fp32 in order of s.
Layouts: x (N, M*S) with any row stride, centroids (M, K, S) -> labels (N, M), uint8 when K <= 256 else int32.
Bytes moved: N*D*itemsize in, N*M*(1 or 4) out; the M*K*S*4 of centroids stay in cache.
Source: Jegou, Douze, Schmid, "Product quantization for nearest neighbor search" (2011), section II.
Ladder: 1. differences, a dimension at a time, a [BN, BK] tile of distances in registers (here): 2 fp32
operations a term, no cancellation, and equal centroids tie exactly; the centroids transposed, (M, S, K), so
that lanes read neighbours. 2. |c|^2 - 2 x.c on tensor cores: to do.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def _tile(K: int) -> tuple[int, int]:
    """(BN, BK): 16 distances a thread with four warps, 32 where K > 64; 64 by 64 spill on sm_80."""
    BK = min(max(16, triton.next_power_of_2(K)), 128)
    return max(32, 2048 // BK), BK


@triton.jit(do_not_specialize=["N", "M", "K", "S", "stride_n"])
def _assign(x_ptr, table_ptr, out_ptr, N, M, K, S, stride_n, BN: tl.constexpr, BK: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    m = tl.program_id(1)
    rows = x_ptr + n * stride_n + m * S  # [BN]
    table = table_ptr + m.to(tl.int64) * K * S
    best = tl.full([BN], float("inf"), tl.float32)
    label = tl.zeros([BN], tl.int32)
    for k0 in range(0, K, BK):
        k = k0 + tl.arange(0, BK)
        dist = tl.zeros([BN, BK], tl.float32)
        for s in range(S):
            x = tl.load(rows + s, mask=n < N, other=0.0).to(tl.float32)
            c = tl.load(table + s * K + k, mask=k < K, other=0.0)
            diff = x[:, None] - c[None, :]
            dist += diff * diff
        dist = tl.where(k[None, :] < K, dist, float("inf"))
        low = tl.min(dist, axis=1)
        first = tl.min(tl.where(dist == low[:, None], k[None, :], K), axis=1)  # the lowest of equals
        label = tl.where(low < best, first, label)  # strict, so an earlier tile keeps a tie
        best = tl.where(low < best, low, best)
    tl.store(out_ptr + n * M + m, label.to(out_ptr.dtype.element_ty), mask=n < N)


def assign(x: Tensor, centroids: Tensor) -> Tensor:
    """Launch: (N, M*S) float32|float16|bfloat16, (M, K, S) float32 -> (N, M) uint8, or int32 when K > 256."""
    N, (M, K, S) = x.shape[0], centroids.shape
    out = torch.empty((N, M), dtype=torch.uint8 if K <= 256 else torch.int32, device=x.device)
    if N == 0:
        return out
    x = x if x.stride(1) == 1 else x.contiguous()
    BN, BK = _tile(K)
    grid = (triton.cdiv(N, BN), M)
    table = centroids.transpose(1, 2).contiguous()  # (M, S, K)
    _assign[grid](x, table, out, N, M, K, S, x.stride(0), BN=BN, BK=BK, num_warps=4, enable_fp_fusion=True)
    return out
