"""Centroids from sums and counts; every empty cell takes half of a large one.

centroid[m, k] = sums[m, k] / counts[m, k]. Then, for each empty cell in the order of k, a cell c is drawn
with odds counts[c] - 1, by a hash of (seed, m, k) modulo the sum of odds. Both cells get its centroid, moved
apart by 1/1024 of itself: for the empty one up in even and down in odd dimensions. They share the count. If
no cell has two rows, c is the first with one.
Layouts: sums (M, K, S) float32, counts (M, K) int32 -> (M, K, S) float32.
Bytes moved: M*K*(8*S + 4); each empty cell reads the K*4 counts of its sub-space again, from L2.
Source: FAISS Clustering (split of empty clusters). A counter and a hash replace its random generator, so that
no state crosses launches. The mixer is C. Wellons' lowbias32 (hash-prospector).
Ladder: 1. (here) one division per element, then one program per sub-space that visits empty cells. Without
empty cells, the usual case, it only reads the counts.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def mixed(x):
    """Mix the 32 bits of an int64 below 2**32. Factors are below 2**31, so no product overflows."""
    x = (x ^ (x >> 16)) * 0x21F0AAAD & 0xFFFFFFFF
    x = (x ^ (x >> 15)) * 0x735A2D97 & 0xFFFFFFFF
    return x ^ (x >> 15)


@triton.jit
def drawn(seed, m, cell, total):
    """Draw a number below total, determined by seed, sub-space and cell."""
    start = mixed(tl.full([], 0, tl.int64) + seed)
    return mixed((mixed((start + m) & 0xFFFFFFFF) + cell) & 0xFFFFFFFF) % total


@triton.jit(do_not_specialize=["S", "E"])
def _means(sums_ptr, counts_ptr, out_ptr, sizes_ptr, S, E, BE: tl.constexpr):
    e = tl.program_id(0).to(tl.int64) * BE + tl.arange(0, BE)
    count = tl.load(counts_ptr + e // S, mask=e < E, other=1)
    mean = tl.div_rn(tl.load(sums_ptr + e, mask=e < E, other=0.0), tl.maximum(count, 1).to(tl.float32))
    tl.store(out_ptr + e, mean, mask=e < E)
    tl.store(sizes_ptr + e // S, count, mask=(e < E) & (e % S == 0))


@triton.jit(do_not_specialize=["K", "S", "seed"])
def _split_large(counts_ptr, out_ptr, sizes_ptr, K, S, seed, BK: tl.constexpr, BS: tl.constexpr):
    m = tl.program_id(0)
    i = tl.arange(0, BK)
    counts_ptr += m.to(tl.int64) * K
    sizes_ptr += m.to(tl.int64) * K
    out_ptr += m.to(tl.int64) * K * S
    total = tl.full([], 0, tl.int64)
    for k0 in range(0, K, BK):
        count = tl.load(counts_ptr + k0 + i, mask=k0 + i < K, other=0).to(tl.int64)
        total += tl.sum(tl.maximum(count - 1, 0), axis=0)
    for k0 in range(0, K, BK):
        count = tl.load(counts_ptr + k0 + i, mask=k0 + i < K, other=1)
        cell = tl.min(tl.where(count == 0, k0 + i, K), axis=0)
        while cell < K:
            draw = drawn(seed, m, cell, tl.maximum(total, 1))
            donor = K
            passed = tl.full([], 0, tl.int64)
            for j0 in range(0, K, BK):
                size = tl.load(sizes_ptr + j0 + i, mask=j0 + i < K, other=0).to(tl.int64)
                odds = tl.where(total > 0, tl.maximum(size - 1, 0), tl.minimum(size, 1))
                reach = passed + tl.cumsum(odds, axis=0)
                donor = tl.minimum(donor, tl.min(tl.where(reach > draw, j0 + i, K), axis=0))
                passed += tl.sum(odds, axis=0)
            donor = tl.where(donor < K, donor, 0)
            size = tl.load(sizes_ptr + donor).to(tl.int64)
            half = size // 2
            total += tl.maximum(half - 1, 0) + tl.maximum(size - half - 1, 0) - tl.maximum(size - 1, 0)
            tl.debug_barrier()  # wait until all lanes have read
            tl.store(sizes_ptr + cell, half.to(tl.int32))
            tl.store(sizes_ptr + donor, (size - half).to(tl.int32))
            for s0 in range(0, S, BS):
                s = s0 + tl.arange(0, BS)
                mean = tl.load(out_ptr + donor.to(tl.int64) * S + s, mask=s < S, other=0.0)
                step = tl.where(s % 2 == 0, 0.0009765625, -0.0009765625)
                tl.store(out_ptr + cell.to(tl.int64) * S + s, mean * (1 + step), mask=s < S)
                tl.store(out_ptr + donor.to(tl.int64) * S + s, mean * (1 - step), mask=s < S)
            tl.debug_barrier()  # makes the writes visible to all lanes
            cell = tl.min(tl.where((count == 0) & (k0 + i > cell), k0 + i, K), axis=0)


def centroid_update(sums: Tensor, counts: Tensor, seed: int) -> Tensor:
    """Launch: (M, K, S) float32, (M, K) int32, seed below 2**31 -> (M, K, S) float32."""
    M, K, S = sums.shape
    sums, counts = sums.contiguous(), counts.contiguous()
    out, sizes = torch.empty_like(sums), torch.empty_like(counts)
    E = sums.numel()
    _means[(triton.cdiv(E, 512),)](
        sums, counts, out, sizes, S, E, BE=512, num_warps=4, enable_fp_fusion=False
    )
    BK, BS = min(512, triton.next_power_of_2(K)), min(512, triton.next_power_of_2(S))
    _split_large[(M,)](counts, out, sizes, K, S, seed, BK=BK, BS=BS, num_warps=4, enable_fp_fusion=False)
    return out
