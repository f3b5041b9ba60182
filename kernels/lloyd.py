"""All iterations of k-means in one launch, for few centroids and rows that stay in cache.

Each iteration is `kmeans_step` and `centroid_update`: a product of halves finds the nearest centroids, a
product with their one-hot gives sums and counts, and empty cells take half of a large one. Centroids stay in
registers.
Layouts: x (N, M*S) float32 with any row stride, centroids (M, K, S), K <= 16 -> (M, K, S) float32.
Bytes moved: N*D*4 in, from memory once and from L2 once per iteration; M*K*S*8 of centroids.
Source: Lloyd, "Least squares quantization in PCM" (1982); FAISS Clustering for empty cells.
Ladder: 1. the two ops, iteration by iteration (the simple form): 8 launches per iteration. 2. (here) one
program per sub-space with a loop of iterations. Its sums run over all rows in order, those of `kmeans_step`
over parts, so centroids agree to rounding.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._halves import halves_of_slots, halves_of_table_slots, padded, table_exponent
from ._launch import compile_target, launch_or
from .assign import least
from .centroid_sums import column_reach
from .centroid_update import centroid_update, drawn
from .kmeans_step import kmeans_step

TILES = ((64, 4), (128, 4), (128, 8), (256, 8))


def _tile(S: int) -> tuple[int, int]:
    """Return (BN, warps). Few programs run, so each is as large as possible without spills."""
    return (256, 8) if S <= 4 else (128, 4) if S <= 8 else (128, 8)


def _fits(N: int, K: int, S: int) -> bool:
    """Return whether one program per sub-space is fast enough: at most 64 tiles of rows per iteration."""
    return K <= 16 and S <= 16 and 0 < N <= 8192


def _part_type() -> tl.dtype:
    """Return bfloat16, or float32 in the interpreter, which would multiply bfloat16's bits as integers."""
    return tl.float32 if compile_target() == "interpreter" else tl.bfloat16


@triton.jit
def _add_by_label(total, x, label, BK: tl.constexpr, SP: tl.constexpr, PART: tl.constexpr):
    """Add the sums by label of hi, mid, lo and 1 of x, with four slots per dimension, to (BK, 4*SP)."""
    j = tl.arange(0, 4 * SP)[None, :]
    hi = x.to(tl.bfloat16).to(tl.float32)
    mid = (x - hi).to(tl.bfloat16).to(tl.float32)
    part = tl.where(j % 4 == 0, hi, tl.where(j % 4 == 1, mid, tl.where(j % 4 == 2, x - hi - mid, 1.0)))
    hot = tl.where(tl.arange(0, BK)[:, None] == label[None, :], 1.0, 0.0)
    return tl.dot(hot.to(PART), part.to(PART), total, input_precision="ieee")


@triton.jit
def _sums_and_counts(parts, BK: tl.constexpr, SP: tl.constexpr):
    """Split (BK, 4*SP) into sums (BK, SP) float32 and counts (BK,) int32."""
    hi_lo, mid_one = tl.split(tl.reshape(parts, (BK, SP, 2, 2)))  # slot 2i + j is [.., i, j]
    hi, lo = tl.split(hi_lo)
    mid, ones = tl.split(mid_one)
    return hi + (mid + lo), tl.max(ones, axis=1).to(tl.int32)


@triton.jit
def _split_large(c, counts, k, K, seed, m, SP: tl.constexpr):
    """Fill empty cells as `centroid_update` does, in (BK, 4*SP) means in registers."""
    size = tl.where(k < K, counts, 0).to(tl.int64)
    empty = (size == 0) & (k < K)
    step = tl.where(tl.arange(0, 4 * SP) // 4 % 2 == 0, 0.0009765625, -0.0009765625)
    cell = tl.min(tl.where(empty, k, K), axis=0)
    while cell < K:
        total = tl.sum(tl.maximum(size - 1, 0), axis=0)
        odds = tl.where(total > 0, tl.maximum(size - 1, 0), tl.minimum(size, 1))
        draw = drawn(seed, m, cell, tl.maximum(total, 1))
        donor = tl.min(tl.where(tl.cumsum(odds, axis=0) > draw, k, K), axis=0)
        given = tl.sum(tl.where(k == donor, size, 0), axis=0)
        size = tl.where(k == cell, given // 2, tl.where(k == donor, given - given // 2, size))
        mean = tl.sum(tl.where(k[:, None] == donor, c, 0.0), axis=0)  # [4*SP]
        c = tl.where(k[:, None] == cell, (mean * (1 + step))[None, :], c)
        c = tl.where(k[:, None] == donor, (mean * (1 - step))[None, :], c)
        cell = tl.min(tl.where(empty & (k > cell), k, K), axis=0)
    return c


@triton.jit(do_not_specialize=["N", "K", "n_iter", "seed"])
def _lloyd(
    x_ptr, c_ptr, out_ptr, N, K, n_iter, seed, stride_n,
    S: tl.constexpr, SP: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PART: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0)
    k = tl.arange(0, BK)
    j = tl.arange(0, 4 * SP)[None, :]
    cells = m * K * S + k[:, None] * S + j // 4
    real = (k[:, None] < K) & (j // 4 < S)
    c = tl.load(c_ptr + cells, mask=real, other=0.0)  # four slots per dimension, 0 past the end
    for i in range(n_iter):
        mean = tl.sum(c, axis=0)[None, :] / K
        near = tl.max(tl.max(tl.where(real, tl.abs(c - mean), 0.0), axis=1), axis=0)
        far = tl.max(tl.max(tl.abs(c), axis=1), axis=0)
        shift = tl.where(near * 2 <= far, mean, 0.0)
        exponent = table_exponent(tl.where(near * 2 <= far, near, far), SP)
        last = tl.sum(tl.where(k[:, None] == K - 1, c, 0.0), axis=0)[None, :]
        every = tl.where(k[:, None] < K, c, last)  # past the end repeat the last; the lower index wins
        table = tl.trans(halves_of_table_slots(every - shift, exponent, BK, SP))
        total = tl.zeros([BK, 4 * SP], tl.float32)
        for n0 in range(0, N, BN):
            n = n0 + tl.arange(0, BN)
            rows = x_ptr + n.to(tl.int64) * stride_n + m * S
            x = tl.load(rows[:, None] + j // 4, mask=(n[:, None] < N) & (j // 4 < S), other=0.0)
            halves, _, _ = halves_of_slots(tl.where(j // 4 < S, x - shift, 0.0), exponent, SP)
            _, label, _ = least(tl.dot(halves, table), k, K, False)
            label = tl.where(n < N, tl.minimum(label, K - 1), -1)  # padded columns may round below the last
            total = _add_by_label(total, x, label, BK, SP, PART)
        sums, counts = _sums_and_counts(total, BK, SP)
        means = tl.div_rn(sums, tl.maximum(counts, 1).to(tl.float32)[:, None])
        four = tl.reshape(tl.broadcast_to(means[:, :, None], (BK, SP, 4)), (BK, 4 * SP))
        c = tl.where(real, four, 0.0)
        now = (tl.full([], 0, tl.int64) + seed + i) & 0x7FFFFFFF
        c = _split_large(c, counts, k, K, now, m, SP)
    tl.store(out_ptr + cells, c, mask=real & (j % 4 == 0))


def lloyd(
    x: Tensor, centroids: Tensor, n_iter: int, seed: int, tile: tuple[int, int] | None = None
) -> Tensor:
    """Launch: (N, M*S) float32, (M, K, S) float32 -> (M, K, S) float32 after n_iter iterations."""
    N, (M, K, S) = x.shape[0], centroids.shape
    x, centroids = x if x.stride(1) == 1 else x.contiguous(), centroids.contiguous()

    def in_one() -> Tensor:
        out = torch.empty_like(centroids)
        BN, warps = tile or _tile(S)
        _lloyd[(M,)](
            x, centroids, out, N, K, n_iter, seed, x.stride(0), S=S, SP=padded(S), BN=BN, BK=16,
            PART=_part_type(), num_warps=warps, num_stages=1, enable_fp_fusion=False,
        )  # fmt: skip
        return out

    def in_steps() -> Tensor:
        c, reach = centroids.clone(), column_reach(x) if N else None
        for i in range(n_iter):
            c = centroid_update(*kmeans_step(x, c, reach), (seed + i) & 0x7FFFFFFF)
        return c

    return launch_or("lloyd[one launch]", in_one, in_steps) if _fits(N, K, S) else in_steps()
