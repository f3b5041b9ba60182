"""The k highest scores of every row of a matrix, exactly, by the extrema of groups.

A score and its column become one int64 key: the float as an int32 of the same order (-0.0 as +0.0) above, and
0xFFFFFFFF - column below, so keys are distinct and the lower column wins a tie. _group_keys emits the highest
key of each G columns, torch.topk takes the k best groups, _member_keys emits the keys of their columns, and
torch.topk takes the k best of those. Exact: were one of the k highest keys in a group not taken, each of the
k groups taken would hold a higher key, and k keys would be above it. Distinct keys leave torch.topk no choice
among ties. Columns past N read as -inf and come after every real column, so their keys are below every real
key.
Layouts: scores (Q, N) float32 with any row stride -> values (Q, k) float32, ids (Q, k) int64.
Bytes moved: Q*N*4 in, Q*(N/G)*8 out and in, Q*k*G*(4 in, 8 out and in); least near G = sqrt(N/k).
Source: the first pass is the PartialReduce of TPU-KNN (arXiv 2206.14286); the second makes it exact.
Ladder: 1. a key a column, torch.topk over all (kept for small N, and for k near N). 2. two passes (here).
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor


def _tile(N: int, k: int) -> int:
    """G: columns a group, the power of two near sqrt(N/k) in 32..1024; 1 where two passes would not pay."""
    G = 2 ** min(max(round(math.log2(N / k) / 2), 5), 10)
    return 1 if N <= 4096 or k * G >= N else G


@triton.jit
def _key(scores_ptr, n, N):
    """int64 keys of columns n of one row: higher score first, then lower column."""
    score = tl.load(scores_ptr + n, mask=n < N, other=float("-inf"))
    bits = score.to(tl.int32, bitcast=True)
    bits = tl.where(bits == -2147483648, 0, bits)  # -0.0 is +0.0
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (order.to(tl.int64) << 32) | (0xFFFFFFFF - n)


@triton.jit(do_not_specialize=["groups", "tiles"])
def _group_keys(scores_ptr, out_ptr, N, stride_q, groups, tiles, G: tl.constexpr, BN: tl.constexpr):
    q = (tl.program_id(0) // tiles).to(tl.int64)
    tile = (tl.program_id(0) % tiles).to(tl.int64)
    key = _key(scores_ptr + q * stride_q, tile * BN + tl.arange(0, BN), N)
    best = tl.max(tl.reshape(key, [BN // G, G]), axis=1)
    g = tile * (BN // G) + tl.arange(0, BN // G)
    tl.store(out_ptr + q * groups + g, best, mask=g < groups)


@triton.jit(do_not_specialize=["k", "tiles"])
def _member_keys(scores_ptr, best_ptr, out_ptr, N, stride_q, k, tiles, G: tl.constexpr, BN: tl.constexpr):
    q = (tl.program_id(0) // tiles).to(tl.int64)
    j = (tl.program_id(0) % tiles).to(tl.int64) * BN + tl.arange(
        0, BN
    )  # column j % G of the row's group j // G
    group = tl.load(best_ptr + q * k + j // G, mask=j < k * G, other=0)
    key = _key(scores_ptr + q * stride_q, group * G + j % G, N)
    tl.store(out_ptr + q * k * G + j, key, mask=j < k * G)


def topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Launch: (Q, N) float32, finite or -inf -> values (Q, k) float32 descending, ids (Q, k) int64."""
    Q, N = scores.shape
    scores = scores if scores.stride(1) == 1 else scores.contiguous()
    G, BN = _tile(N, k), 1024
    options = {"G": G, "BN": BN, "num_warps": 4, "enable_fp_fusion": False}
    groups = triton.cdiv(N, G)
    keys = torch.empty((Q, groups), dtype=torch.int64, device=scores.device)
    if Q > 0:
        tiles = triton.cdiv(N, BN)
        _group_keys[(Q * tiles,)](scores, keys, N, scores.stride(0), groups, tiles, **options)
    if Q > 0 and G > 1:
        best = torch.topk(keys, k, dim=1, sorted=False).indices
        keys = torch.empty((Q, k * G), dtype=torch.int64, device=scores.device)
        tiles = triton.cdiv(k * G, BN)
        _member_keys[(Q * tiles,)](scores, best, keys, N, scores.stride(0), k, tiles, **options)
    ids = 0xFFFFFFFF - (torch.topk(keys, k, dim=1).values & 0xFFFFFFFF)
    return scores.gather(1, ids), ids
