"""The k highest scores of every row, exactly, by the maxima of groups.

_group_best writes the maximum of each group of G columns. _finish, one program per row, selects the best k
groups or a few more. It selects their columns that are not below the lowest of these maxima, k or a few more,
and sorts them. To select from a tile, it searches bit by bit for a distance from the maximum that includes
enough and not too many. To sort, it counts for each column how many come before it.
If the groups of a row, or the columns of k groups, do not fit in a tile, torch.topk selects the best keys
instead. The high half of a key is the float as an int32 of the same order (-0.0 as +0.0), the low half is
0xFFFFFFFF - its number. Keys are distinct, so torch.topk has no choice among ties, and the lower number wins.
Exact: suppose that one of the k highest columns is in a group that is not selected. Then each of the k
selected groups has a greater maximum, or an equal one and lower columns, and so holds a column above it: k
columns are above it, a contradiction. Columns past N read as -inf and come after every real column, so they
are never selected before one.
Layouts: scores (Q, N) float32 with any row stride -> values (Q, k) float32, ids (Q, k) int64.
Bytes moved: Q*N*4 in, Q*(N/G)*4 out and in, Q*k*G*4 in; least near G = sqrt(N/k).
Source: the first pass is the PartialReduce of TPU-KNN (arXiv 2206.14286); the second makes it exact.
Ladder: 1. one key per column, torch.topk over all. 2. two passes, with maxima over the keys of columns: about
12 instructions per score. 3. maxima over the floats, one key per group, and torch.topk twice: 24 microseconds
each for one row on an H200, and six launches of torch beside the kernels'. Kept for large N and k. 4. one
kernel for everything after the first pass. 5. (here) its searches end at k to 2*k instead of at exactly k: 5
and 0 or 1 turns instead of 31 each for normal scores, where the columns' maxima give their bound.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_WIDE = 8192  # columns, or maxima, in one program's registers; twice as many would spill
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}
_MOST = 1024  # most columns to sort by counting


def _tile(N: int, k: int) -> int:
    """Return G, the power of two near sqrt(N/k) in 32..1024, or 1 if two passes do not pay."""
    G = 2 ** min(max(round(math.log2(N / k) / 2), 5), 10)
    return 1 if N <= 4096 or k * G >= N else G


@triton.jit
def _order(score):
    """Convert float32 to int32 of the same order."""
    bits = (score + 0.0).to(tl.int32, bitcast=True)  # -0.0 is +0.0
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _key(score, number):
    """Make int64 keys that order by higher score, then lower number."""
    return (_order(score).to(tl.int64) << 32) | (0xFFFFFFFF - number)


@triton.jit
def _taken(order, highest, k, MOST: tl.constexpr):
    """Return which of order [C] int32 are selected, their numbers from 1, their count and the lowest.

    Selected are all within a distance of `highest`, the maximum, that includes k to MOST. It is found bit by
    bit, starting with 2**23, which includes most of the highest floats. If too many are equal at this
    distance, the first of these are selected. -2147483648 means no element.
    """
    nothing = tl.full([], -2147483648, tl.int32)
    room = (highest - nothing).to(tl.uint32, bitcast=True)
    below = tl.full([], 0, tl.uint32)  # a distance that includes fewer than k
    bound, bit = nothing, 32
    count = tl.sum((order > bound).to(tl.int32), axis=0)
    while (count > MOST) & (bit >= 0):
        first = bit == 32
        distance = below + (tl.full([], 1, tl.uint32) << tl.where(first, 23, bit))
        nearer = tl.where(distance > room, nothing, highest - distance.to(tl.int32, bitcast=True))
        many = tl.sum((order > nearer).to(tl.int32), axis=0)
        enough = many >= k
        bound, count = tl.where(enough, nearer, bound), tl.where(enough, many, count)
        below = tl.where(enough | first, below, distance)
        bit = tl.where(first, tl.where(enough, 22, 31), bit - 1)
    least = bound + 1
    above, equal = order > least, order == least
    both = above.to(tl.int32) + (equal.to(tl.int32) << 16)  # one sum for both
    total, so_far = tl.sum(both, axis=0), tl.cumsum(both, axis=0)
    left = tl.where(count > MOST, k - (total & 65535), total >> 16)
    taken = above | (equal & ((so_far >> 16) <= left))
    number = (so_far & 65535) + tl.minimum(so_far >> 16, left)
    return taken, number, tl.where(count > MOST, k, count), least


@triton.jit(do_not_specialize=["k"])
def _finish(
    scores_ptr, best_ptr, keys_ptr, values_ptr, ids_ptr, N, stride_q, groups, k,
    G: tl.constexpr, BC: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, BJ: tl.constexpr,
):  # fmt: skip
    """keys: (Q, BK) int64 scratch, which first holds the numbers of groups."""
    q = tl.program_id(0).to(tl.int64)
    keys_ptr += q * BK
    lowest = -2147483648
    at = tl.arange(0, BM)
    n, inside = at.to(tl.int64), at < N
    if G > 1:
        g = tl.arange(0, BC)
        maximum = tl.load(best_ptr + q * groups + g, mask=g < groups, other=float("-inf"))
        order = _order(maximum)
        highest = tl.max(order, axis=0)
        is_taken, number, count, lowest = _taken(order, highest, k, BK)
        tl.store(keys_ptr + number - 1, g.to(tl.int64), mask=is_taken)
        tl.debug_barrier()
        inside = at // G < count
        n = tl.load(keys_ptr + at // G, mask=inside, other=0) * G + at % G
        inside = inside & (n < N)
        tl.debug_barrier()
    score = tl.load(scores_ptr + q * stride_q + n, mask=inside, other=float("-inf"))
    order = _order(score)
    order = tl.where(inside & (order >= lowest), order, -2147483648)
    if G == 1:
        highest = tl.max(order, axis=0)
    is_taken, number, count, _ = _taken(order, highest, k, BK)
    key = (order.to(tl.int64) << 32) | (0xFFFFFFFF - n)
    tl.store(keys_ptr + number - 1, key, mask=is_taken)
    tl.debug_barrier()
    i = tl.arange(0, BK)
    own = tl.load(keys_ptr + i, mask=i < count, other=0)
    before = tl.zeros([BK], tl.int32)
    for first in range(0, count, BJ):
        j = first + tl.arange(0, BJ)
        other = tl.load(keys_ptr + j, mask=j < count, other=-9223372036854775808)
        before += tl.sum((other[None, :] > own[:, None]).to(tl.int32), axis=1)
    n = 0xFFFFFFFF - (own & 0xFFFFFFFF)
    best = (i < count) & (before < k)
    value = tl.load(scores_ptr + q * stride_q + n, mask=best, other=0.0)
    tl.store(values_ptr + q * k + before, value, mask=best)
    tl.store(ids_ptr + q * k + before, n, mask=best)


@triton.jit(do_not_specialize=["groups", "tiles"])
def _group_best(
    scores_ptr, out_ptr, N, stride_q, groups, tiles, G: tl.constexpr, BG: tl.constexpr, KEYS: tl.constexpr
):
    q = (tl.program_id(0) // tiles).to(tl.int64)
    tile = (tl.program_id(0) % tiles).to(tl.int64)
    g = tile * BG + tl.arange(0, BG)
    n = (g * G)[:, None] + tl.arange(0, G)
    if (tile + 1) * (BG * G) <= N:  # no masks, which would split the loads if 16 does not divide N
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
    """Launch one program per row. best: (Q, N / G), or the scores if G is 1."""
    (Q, N), groups = scores.shape, best.shape[1]
    values = torch.empty((Q, k), dtype=torch.float32, device=scores.device)
    ids = torch.empty((Q, k), dtype=torch.int64, device=scores.device)
    BC, BM, BK = (triton.next_power_of_2(n) for n in (groups if G > 1 else 1, k * G if G > 1 else N, k))
    keys = torch.empty((Q, BK), dtype=torch.int64, device=scores.device)
    widest = max(BC, BM)
    _finish[(Q,)](
        scores, best, keys, values, ids, N, scores.stride(0), groups, k,
        G=G, BC=BC, BM=BM, BK=BK, BJ=min(32, BK),
        num_warps=4 if widest <= 256 else 8 if widest <= 4096 else 16, enable_fp_fusion=False,
    )  # fmt: skip
    return values, ids


def _sorted(scores: Tensor, keys: Tensor, k: int, G: int) -> tuple[Tensor, Tensor]:
    """keys: (Q, N / G) of groups, or of columns if G is 1."""
    Q, N = scores.shape
    if Q > 0 and G > 1:
        best = torch.topk(keys, k, dim=1, sorted=False).indices
        keys = torch.empty((Q, k * G), dtype=torch.int64, device=scores.device)
        BG = 2048 // G
        tiles = triton.cdiv(k, BG)
        _member_keys[(Q * tiles,)](scores, best, keys, N, scores.stride(0), k, tiles, G=G, BG=BG, **_OPTIONS)
    ids = 0xFFFFFFFF - (torch.topk(keys, k, dim=1).values & 0xFFFFFFFF)
    return scores.gather(1, ids), ids
