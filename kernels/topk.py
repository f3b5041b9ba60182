"""The k highest scores of every row of a matrix, exactly, by the extrema of groups.

_group_best emits the highest score of each G columns. _finish runs once a row: it takes the k best groups, of
their columns the k best, and puts these in order. To take the k best of a tile it finds the k-th greatest by
its bits, highest first, counting how many are no lower; of those that equal it the first ones are taken. The
k taken columns get their places by counting how many come before each.
Where the groups of a row, or the columns of k groups, do not fit a tile, torch.topk takes the best keys: the
float as an int32 of the same order (-0.0 as +0.0) above, and 0xFFFFFFFF - its number below. Keys are
distinct, so torch.topk has no choice among ties, and the lower number wins them.
Exact: were one of the k highest columns in a group not taken, each of the k groups taken would have a greater
maximum, or an equal one and lower columns, and so hold a column above it; then k columns would be above it.
Columns past N read as -inf and come after every real column, so they are never taken before one.
Layouts: scores (Q, N) float32 with any row stride -> values (Q, k) float32, ids (Q, k) int64.
Bytes moved: Q*N*4 in, Q*(N/G)*4 out and in, Q*k*G*4 in; least near G = sqrt(N/k).
Source: the first pass is the PartialReduce of TPU-KNN (arXiv 2206.14286); the second makes it exact.
Ladder: 1. a key a column, torch.topk over all. 2. two passes, the maxima over keys of columns: some 12
instructions a score. 3. maxima over the floats themselves, a key a group, and torch.topk twice: on an H200 24
microseconds each for one row, and six launches of torch beside the kernels'. 4. one kernel for all after the
first pass (here); 3 is kept for large N and k.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_WIDE = 8192  # columns, or maxima, that one program holds in its registers; twice as many would spill
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
_MOST = 1024  # columns that are put in order by counting


def _tile(N: int, k: int) -> int:
    """G: columns a group, the power of two near sqrt(N/k) in 32..1024; 1 where two passes would not pay."""
    G = 2 ** min(max(round(math.log2(N / k) / 2), 5), 10)
    return 1 if N <= 4096 or k * G >= N else G


@triton.jit
def _order(score):
    """int32 of the same order as the float32."""
    bits = score.to(tl.int32, bitcast=True)
    bits = tl.where(bits == -2147483648, 0, bits)  # -0.0 is +0.0
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _key(score, number):
    """int64 keys: higher score first, then lower number."""
    return (_order(score).to(tl.int64) << 32) | (0xFFFFFFFF - number)


@triton.jit
def _taken(order, k):
    """Which of order [C] int32 are the k greatest, the first of equal ones, and how many are before each."""
    least = tl.where(tl.sum((order >= 0).to(tl.int32), axis=0) >= k, 0, -2147483648)
    for i in range(31):
        higher = least + (1 << (30 - i))
        least = tl.where(tl.sum((order >= higher).to(tl.int32), axis=0) >= k, higher, least)
    above, equal = (order > least).to(tl.int32), (order == least).to(tl.int32)
    left = k - tl.sum(above, axis=0)
    taken = above + equal * (tl.cumsum(equal, axis=0) <= left).to(tl.int32)
    return taken > 0, tl.cumsum(taken, axis=0) - taken


@triton.jit(do_not_specialize=["k"])
def _finish(
    scores_ptr, best_ptr, keys_ptr, values_ptr, ids_ptr, N, stride_q, groups, k,
    G: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, BJ: tl.constexpr,
):  # fmt: skip
    """keys: (Q, k) int64 of scratch, where the numbers of groups are first."""
    q = tl.program_id(0).to(tl.int64)
    keys_ptr += q * k
    at = tl.arange(0, BM)
    n, inside = at.to(tl.int64), at < N
    if G > 1:
        g = tl.arange(0, BC)
        best = tl.load(best_ptr + q * groups + g, mask=g < groups, other=float("-inf"))
        is_taken, place = _taken(tl.where(g < groups, _order(best), -2147483648), k)
        tl.store(keys_ptr + place, g.to(tl.int64), mask=is_taken)
        tl.debug_barrier()
        inside = at // G < k
        n = tl.load(keys_ptr + at // G, mask=inside, other=0) * G + at % G
        inside = inside & (n < N)
        tl.debug_barrier()
    score = tl.load(scores_ptr + q * stride_q + n, mask=inside, other=float("-inf"))
    is_taken, place = _taken(tl.where(inside, _order(score), -2147483648), k)
    key = (_order(score).to(tl.int64) << 32) | (0xFFFFFFFF - n)
    tl.store(keys_ptr + place, key, mask=is_taken)
    tl.debug_barrier()
    i = tl.arange(0, BK)
    own = tl.load(keys_ptr + i, mask=i < k, other=0)
    before = tl.zeros([BK], tl.int32)
    for first in range(0, k, BJ):
        j = first + tl.arange(0, BJ)
        other = tl.load(keys_ptr + j, mask=j < k, other=-9223372036854775808)
        before += tl.sum((other[None, :] > own[:, None]).to(tl.int32), axis=1)
    number = 0xFFFFFFFF - (own & 0xFFFFFFFF)
    value = tl.load(scores_ptr + q * stride_q + number, mask=i < k, other=0.0)
    tl.store(values_ptr + q * k + before, value, mask=i < k)
    tl.store(ids_ptr + q * k + before, number, mask=i < k)


@triton.jit(do_not_specialize=["groups", "tiles"])
def _group_best(
    scores_ptr, out_ptr, N, stride_q, groups, tiles, G: tl.constexpr, BG: tl.constexpr, KEYS: tl.constexpr
):
    q = (tl.program_id(0) // tiles).to(tl.int64)
    tile = (tl.program_id(0) % tiles).to(tl.int64)
    g = tile * BG + tl.arange(0, BG)
    n = (g * G)[:, None] + tl.arange(0, G)
    if (tile + 1) * (BG * G) <= N:  # without masks, which would split the loads where 16 does not divide N
        score = tl.load(scores_ptr + q * stride_q + n)
    else:
        score = tl.load(scores_ptr + q * stride_q + n, mask=n < N, other=float("-inf"))
    best = tl.max(score, axis=1)
    if KEYS:
        best = _key(best, g)
    tl.store(out_ptr + q * groups + g, best, mask=g < groups)


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
    groups = triton.cdiv(N, G)
    fits = k <= _MOST and groups <= _WIDE and (G == 1 or k * G <= _WIDE)
    best = scores
    if Q > 0 and not (fits and G == 1):
        best = torch.empty((Q, groups), dtype=torch.float32 if fits else torch.int64, device=scores.device)
        BG = (4096 if G > 1 else 1024) // G
        tiles = triton.cdiv(groups, BG)
        _group_best[(Q * tiles,)](
            scores, best, N, scores.stride(0), groups, tiles, G=G, BG=BG, KEYS=not fits, **_OPTIONS
        )
    if Q > 0 and fits:
        return _finished(scores, best, k, G)
    return _sorted(scores, best.long(), k, G)


def _finished(scores: Tensor, best: Tensor, k: int, G: int) -> tuple[Tensor, Tensor]:
    """One program a row. best: (Q, N / G), or the scores where G is 1."""
    (Q, N), groups = scores.shape, best.shape[1]
    values = torch.empty((Q, k), dtype=torch.float32, device=scores.device)
    keys, ids = (torch.empty((Q, k), dtype=torch.int64, device=scores.device) for _ in range(2))
    BC, BM, BK = (triton.next_power_of_2(n) for n in (groups if G > 1 else 1, k * G if G > 1 else N, k))
    widest = max(BC, BM)
    _finish[(Q,)](
        scores, best, keys, values, ids, N, scores.stride(0), groups, k,
        G=G, BC=BC, BM=BM, BK=BK, BJ=min(32, BK),
        num_warps=4 if widest <= 1024 else 8 if widest <= 4096 else 16, enable_fp_fusion=False,
    )  # fmt: skip
    return values, ids


def _sorted(scores: Tensor, keys: Tensor, k: int, G: int) -> tuple[Tensor, Tensor]:
    """keys: (Q, N / G) of groups, or of the columns where G is 1."""
    Q, N = scores.shape
    if Q > 0 and G > 1:
        best = torch.topk(keys, k, dim=1, sorted=False).indices
        keys = torch.empty((Q, k * G), dtype=torch.int64, device=scores.device)
        BG = 2048 // G
        tiles = triton.cdiv(k, BG)
        _member_keys[(Q * tiles,)](scores, best, keys, N, scores.stride(0), k, tiles, G=G, BG=BG, **_OPTIONS)
    ids = 0xFFFFFFFF - (torch.topk(keys, k, dim=1).values & 0xFFFFFFFF)
    return scores.gather(1, ids), ids
