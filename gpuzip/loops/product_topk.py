"""The rows with the best products with queries, in one pass: tiles of rows are made, and multiplied."""

import numpy as np
import torch

from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._blocks import rows_of_a_block, scratch
from gpuzip.loops._columns import part
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._least import best_of, clear_unused, cut, key_of, score_of
from gpuzip.loops._vector import above
from gpuzip.loops._words import trailing_zeros

_VALUES = 1 << 18, 1 << 19  # of a tile of rows, and of so few that they are one tile
_ROWS = 64, 2048  # per tile, at least and at most
_SCORES = 1 << 19  # of a tile: 2 MB
_WIDTH = 16  # scores that are compared together
_LANES = 32  # the fewest maxima of a tile

_above = above(_WIDTH)


def product_topk(write, N, queries, k, scale=None, bias=None, mask=None):
    """Find the k best rows per query by q.x * scale[row] + bias[row] in float32, sums in any order.

    write(start, stop, out) writes rows (n, D) float32 to the tensor out. queries (Q, D) float32 -> scores
    (Q, k), rows (Q, k). A row whose score is NaN, or whose mask is False, is left out.
    """
    Q, D = queries.shape
    kinds = zip((scale, bias, mask), (np.float32, np.float32, np.bool_), strict=True)
    columns = [part(column, 0, N, kind) for column, kind in kinds]
    values = _VALUES[1] if _VALUES[1] >= N * D else _VALUES[0]
    tile = min(_ROWS[1], max(_ROWS[0], values // max(1, D)), N)
    most = max(1, _SCORES // tile)
    some = queries.split(most) if most < Q else (queries,)
    room = k + max(_LANES, k // 2)

    def some_rows(first, last):
        keys = np.empty((Q, room), np.uint64)
        own = np.zeros(Q, np.intp), np.full(Q, -np.inf, np.float32), np.empty(room, np.float32)
        rows, sums = (
            torch.from_numpy(scratch.take(name, count, np.float32))
            for name, count in (("rows", tile * D), ("scores", tile * len(some[0])))
        )
        for start in range(first, last, tile):
            n, q = min(tile, last - start), 0
            here = rows[: n * D].view(n, D)
            write(start, start + n, here)
            for asked in some:
                scores = sums[: len(asked) * n].view(len(asked), n)
                matrix_product(torch.mm, asked, here.T, out=scores)
                _take(scores.numpy(), q, start, *columns, k, keys.reshape(-1), *own)
                q += len(asked)
        _clear(keys.reshape(-1), own[0], Q)
        return keys

    parts = map_blocks(some_rows, N, rows_of_a_block(N, 4 * D * Q, k), lone_here=True)
    return tuple(map(torch.from_numpy, best_of(parts, k)))


@jit("void(uint64[::1], intp[::1], intp)")
def _clear(keys, counts, Q):
    clear_unused(keys, counts, Q)


@jit("float32(float32[::1], intp, uint64[::1], intp, float32[::1])", inner=True)
def _reached(row, k, keys, first, tops):
    """Return a limit that k of the scores are above: the k-th of as many maxima as there is room for."""
    lanes = len(tops)
    for j in range(lanes):
        tops[j] = row[j]
    for start in range(lanes, len(row) - lanes + 1, lanes):
        for j in range(lanes):
            tops[j] = row[start + j] if row[start + j] > tops[j] else tops[j]
    for j in range(lanes):
        keys[first + j] = key_of(tops[j] if tops[j] > -np.inf else np.float32(-np.inf), j)
    limit = score_of(cut(keys, first, lanes, k))
    return limit - abs(limit) * np.float32(2.0**-22) - np.float32(2.0**-120)


@jit(
    "void(float32[:, ::1], intp, intp, float32[::1], float32[::1], boolean[::1], intp, uint64[::1], "
    "intp[::1], float32[::1], float32[::1])"
)
def _take(scores, first, start, scale, bias, mask, k, keys, counts, worst, tops):
    """Take the scores (q, n) of queries from `first` with rows from `start`; scores are overwritten.

    keys: (Q * room,) in all. tops: memory for `room` floats.
    """
    wide_vectors()
    n, room = scores.shape[1], len(keys) // len(counts)
    for i in range(len(scores)):
        q, row = first + i, scores[i]
        if len(scale):
            for r in range(n):
                row[r] *= scale[start + r]
        if len(bias):
            for r in range(n):
                row[r] += bias[start + r]
        if len(mask):
            for r in range(n):
                row[r] = row[r] if mask[start + r] else np.float32(-np.inf)
        limit, count, whole = worst[q], counts[q], n // _WIDTH * _WIDTH
        if count == 0 and n >= 4 * room:
            limit = _reached(row, k, keys, q * room, tops)
        for r in range(0, n, _WIDTH):
            bits = _above(row, r, limit) if r < whole else np.uint64(2 ** (n - whole) - 1)
            while bits:
                at = r + np.intp(trailing_zeros(bits))
                bits &= bits - np.uint64(1)
                if row[at] > limit:
                    keys[q * room + count] = key_of(row[at], start + at)
                    count += 1
                    if count == room:
                        limit, count = score_of(cut(keys, q * room, room, k)), k
        worst[q], counts[q] = limit, count
