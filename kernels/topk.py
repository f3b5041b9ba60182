"""The k highest scores of every row of a matrix, exactly, by the extrema of groups.

_group_keys emits the highest score of each G columns and the group's number as one int64 key: the float as an
int32 of the same order (-0.0 as +0.0) above, and 0xFFFFFFFF - group below. torch.topk takes the k best
groups, _member_keys emits the keys of their columns, made in the same way with the column's number, and
torch.topk takes the k best of those. Keys are distinct, so torch.topk has no choice among ties, and the lower
number wins them.
Exact: were one of the k highest columns in a group not taken, each of the k groups taken would have a greater
maximum, or an equal one and lower columns, and so hold a column above it; then k columns would be above it.
Columns past N read as -inf and come after every real column, so their keys are below every real key.
Layouts: scores (Q, N) float32 with any row stride -> values (Q, k) float32, ids (Q, k) int64.
Bytes moved: Q*N*4 in, Q*(N/G)*8 out and in, Q*k*G*(4 in, 8 out and in); least near G = sqrt(N/k).
Source: the first pass is the PartialReduce of TPU-KNN (arXiv 2206.14286); the second makes it exact.
Ladder: 1. a key a column, torch.topk over all (kept for small N, and for k near N). 2. two passes, the maxima
over keys of columns: some 12 instructions a score. 3. maxima over the floats themselves, a key a group
(here).
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
def _key(score, number):
    """int64 keys: higher score first, then lower number."""
    bits = score.to(tl.int32, bitcast=True)
    bits = tl.where(bits == -2147483648, 0, bits)  # -0.0 is +0.0
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (order.to(tl.int64) << 32) | (0xFFFFFFFF - number)


@triton.jit(do_not_specialize=["groups", "tiles"])
def _group_keys(scores_ptr, out_ptr, N, stride_q, groups, tiles, G: tl.constexpr, BG: tl.constexpr):
    q = (tl.program_id(0) // tiles).to(tl.int64)
    g = (tl.program_id(0) % tiles).to(tl.int64) * BG + tl.arange(0, BG)
    n = (g * G)[:, None] + tl.arange(0, G)
    score = tl.load(scores_ptr + q * stride_q + n, mask=n < N, other=float("-inf"))
    tl.store(out_ptr + q * groups + g, _key(tl.max(score, axis=1), g), mask=g < groups)


@triton.jit(do_not_specialize=["k", "tiles"])
def _member_keys(scores_ptr, best_ptr, out_ptr, N, stride_q, k, tiles, G: tl.constexpr, BG: tl.constexpr):
    q = (tl.program_id(0) // tiles).to(tl.int64)
    j = (tl.program_id(0) % tiles).to(tl.int64) * BG + tl.arange(0, BG)
    group = tl.load(best_ptr + q * k + j, mask=j < k, other=0)
    i, taken = tl.arange(0, G)[None, :], (j < k)[:, None]
    n = (group * G)[:, None] + i
    score = tl.load(scores_ptr + q * stride_q + n, mask=taken & (n < N), other=float("-inf"))
    tl.store(out_ptr + ((q * k + j) * G)[:, None] + i, _key(score, n), mask=taken)


def topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Launch: (Q, N) float32, finite or -inf -> values (Q, k) float32 descending, ids (Q, k) int64."""
    Q, N = scores.shape
    scores = scores if scores.stride(1) == 1 else scores.contiguous()
    G = _tile(N, k)
    options = {"G": G, "num_warps": 4, "enable_fp_fusion": False}
    groups = triton.cdiv(N, G)
    keys = torch.empty((Q, groups), dtype=torch.int64, device=scores.device)
    if Q > 0:
        BG = (4096 if G > 1 else 1024) // G
        tiles = triton.cdiv(groups, BG)
        _group_keys[(Q * tiles,)](scores, keys, N, scores.stride(0), groups, tiles, BG=BG, **options)
    if Q > 0 and G > 1:
        best = torch.topk(keys, k, dim=1, sorted=False).indices
        keys = torch.empty((Q, k * G), dtype=torch.int64, device=scores.device)
        BG = 2048 // G
        tiles = triton.cdiv(k, BG)
        _member_keys[(Q * tiles,)](scores, best, keys, N, scores.stride(0), k, tiles, BG=BG, **options)
    ids = 0xFFFFFFFF - (torch.topk(keys, k, dim=1).values & 0xFFFFFFFF)
    return scores.gather(1, ids), ids
