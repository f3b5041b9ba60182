"""The rows with the best estimates by int8 products, in one pass over codes of one byte per dimension."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import local
from gpuzip.loops._blocks import AHEAD, LINE, rows_of_a_block
from gpuzip.loops._columns import part
from gpuzip.loops._jit import jit
from gpuzip.loops._least import best_of, clear_unused, cut, key_of, room_for, score_of
from gpuzip.loops._products import WIDTH, dots
from gpuzip.loops._registers import address_of, prefetch

_MOST_QUERIES = 4  # with more, products by tiles are faster
_TILE = 8  # rows

_dots_4x1, _dots_1x1 = dots(4, 1), dots(1, 1)
_sums = local(_TILE, np.int32)
_counts, _worst = local(_MOST_QUERIES, np.intp), local(_MOST_QUERIES, np.float32)


def can_search(Q):
    """Return whether one pass is faster than `scalar_scan` for Q queries."""
    return Q <= _MOST_QUERIES


def scalar_topk(codes, queries, query_scale, query_offset, k, flip=0, scale=None, bias=None, mask=None):
    """Find the k best rows per query by the scores of `scalar_scan` with codes of 8 bits.

    flip: what is xor-ed to codes before. -> scores (Q, k), rows (Q, k).
    """
    (N, D), Q = codes.shape, len(queries)
    rest = -D % WIDTH
    tail = min(N, -(-(D + rest) // D))  # the last rows: a read of one may pass the end of the codes
    asked = torch.nn.functional.pad(queries.short(), (0, rest)).contiguous().numpy().reshape(-1)
    flat = codes.contiguous().view(-1).numpy()
    edge = np.concatenate([flat[-tail * D :], np.zeros(rest, np.uint8)])
    of_queries = query_scale.contiguous().numpy(), part(query_offset, 0, Q, np.float32)
    of_rows = part(scale, 0, N, np.float32), part(bias, 0, N, np.float32), part(mask, 0, N, np.bool_)

    def some_rows(start, stop):
        keys = np.empty((Q, room_for(k)), np.uint64)
        _scan(flat, edge, D, start, stop, asked, *of_queries, *of_rows, flip, k, keys.reshape(-1))
        return keys

    parts = map_blocks(some_rows, N, rows_of_a_block(N, D * Q, k), lone_here=True)
    return tuple(map(torch.from_numpy, best_of(parts, k)))


@jit(
    "void(uint8[::1], uint8[::1], intp, intp, intp, int16[::1], float32[::1], float32[::1], float32[::1], "
    "float32[::1], boolean[::1], uint8, intp, uint64[::1])"
)
def _scan(codes, edge, D, first, last, queries, unit, offset, scale, bias, mask, flip, k, keys):
    """Scan rows first to last. edge: the last rows, with room for reads. keys: (Q * room,) in all."""
    Q, E, N = len(unit), len(queries) // len(unit), len(codes) // D
    room, sums, counts, worst = len(keys) // Q, _sums(), _counts(), _worst()
    for q in range(Q):
        counts[q], worst[q] = 0, -np.inf
    edge_row = N - (len(edge) - (E - D)) // D
    for start in range(first, last, _TILE):
        rows = min(_TILE, last - start)
        for at in range(0, rows * D, LINE):
            prefetch(address_of(codes) + start * D + at + AHEAD)
        for q in range(Q):
            fours = max(0, min(rows, edge_row - start)) // 4 * 4
            for r in range(0, fours, 4):
                _dots_4x1(sums, r, 1, codes, (start + r) * D, D, queries, q * E, E, flip)
            for r in range(fours, rows):
                if start + r < edge_row:
                    _dots_1x1(sums, r, 1, codes, (start + r) * D, D, queries, q * E, E, flip)
                else:
                    _dots_1x1(sums, r, 1, edge, (start + r - edge_row) * D, D, queries, q * E, E, flip)
            limit, count = worst[q], counts[q]
            for r in range(rows):
                score = unit[q] * np.float32(sums[r])
                if len(offset):
                    score += offset[q]
                if len(scale):
                    score *= scale[start + r]
                if len(bias):
                    score += bias[start + r]
                if score > limit and (len(mask) == 0 or mask[start + r]):
                    keys[q * room + count] = key_of(score, start + r)
                    count += 1
                    if count == room:
                        limit = score_of(cut(keys, q * room, room, k))
                        count = k
            worst[q], counts[q] = limit, count
    clear_unused(keys, counts, Q)
