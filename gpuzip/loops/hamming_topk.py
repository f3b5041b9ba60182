"""The k nearest rows by Hamming distance, in one pass over the codes.

Words of 32 rows are turned into columns, so that rows are lanes of a register, and bits are counted there by
look-ups of nibbles. Source: Mula, Kurz, Lemire, "Faster population counts using AVX2 instructions", 2018.
"""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import local
from gpuzip.loops._blocks import AHEAD, LINE, rows_of_a_block, scratch
from gpuzip.loops._columns import part
from gpuzip.loops._jit import jit
from gpuzip.loops._least import best_of, clear_unused, cut, key_of, room_for, score_of
from gpuzip.loops._registers import differing, turn_words
from gpuzip.loops._vectors256 import ROWS, address_of, copy_rows, is_here, prefetch

_WORD, _STEP = 8, 4  # bytes, and words that are turned into columns at a time
_TILE = 1 << 12  # bytes of columns that stay in L1 while queries take turns

_distances = local(ROWS, np.int64)


def can_search(B):
    """Return whether this CPU counts bits in registers for rows of B bytes."""
    return B >= _WORD and is_here()


def hamming_topk(queries, codes, k, mask=None):
    """Find the k nearest rows per query: (Q, B), (N, B) uint8 -> scores (Q, k), minus distances, rows (Q, k).

    B >= 8. The rows of codes may be apart. A row is left out where mask is False.
    """
    (N, B), Q = codes.shape, len(queries)
    W = -(-B // _WORD)
    asked = queries.numpy()
    if B % _WORD or not asked.flags.c_contiguous or queries.data_ptr() % _WORD:
        asked = np.zeros((Q, W * _WORD), np.uint8)
        asked[:, :B] = queries.numpy()
    allowed, blocks = part(mask, 0, N, np.bool_), max(1, _TILE // (ROWS * W * _WORD))

    def some_rows(start, stop):
        keys = np.empty((Q, room_for(k)), np.uint64)
        state = np.empty((2, Q), np.int64)
        own = (
            scratch.take("words", (blocks + 1) * ROWS * -(-W // _STEP) * _STEP, np.uint64),
            *state,
        )
        place = codes.data_ptr(), codes.stride(0), B, N
        _scan(*place, start, stop, asked.view(np.uint64).reshape(-1), allowed, k, keys.reshape(-1), *own)
        return keys

    parts = map_blocks(some_rows, N, rows_of_a_block(N, B * Q, k), with_caller=True)
    return tuple(map(torch.from_numpy, best_of(parts, k)))


@jit("void(intp, intp, intp, intp, intp, uint64[::1], intp, intp)", inner=True)
def _turn_rows(row, stride, B, rows, end, columns, c, edge):
    """Turn 32 rows from address `row` into columns[c:]; no byte is read from `end` on."""
    W, most, first, at = (B + _WORD - 1) // _WORD, 32 * ((B + 31) // 32), row, address_of(columns) + _WORD * c
    if first + (ROWS - 1) * stride + most > end:
        copy_rows(edge, first, stride, B, rows)
        first, stride = edge, B
    for j in range((W + _STEP - 1) // _STEP):
        turn_words(at + _STEP * _WORD * ROWS * j, first + _STEP * _WORD * j, stride)
    if B % _WORD:  # the last word holds bytes of the next row
        own = (np.uint64(1) << np.uint64(8 * (B % _WORD))) - np.uint64(1)
        for r in range(ROWS):
            columns[c + (W - 1) * ROWS + r] &= own


@jit(
    "void(intp, intp, intp, intp, intp, intp, uint64[::1], boolean[::1], intp, uint64[::1], uint64[::1], "
    "int64[::1], int64[::1])"
)
def _scan(address, stride, B, N, first, last, queries, mask, k, keys, columns, counts, bounds):
    """Scan rows first to last.

    keys: (Q * room,) in all. columns: for one tile, then room for 32 rows. counts, bounds: (Q,).
    """
    W = (B + _WORD - 1) // _WORD
    Q, size = len(queries) // W, ROWS * _STEP * ((W + _STEP - 1) // _STEP)
    room, blocks = len(keys) // Q, len(columns) // size - 1
    distances = _distances()
    for q in range(Q):
        counts[q], bounds[q] = 0, 8 * B + 1  # a row must be nearer than the bound
    turned, end = address_of(columns), address + (N - 1) * stride + B
    for start in range(first, last, blocks * ROWS):
        stop = min(start + blocks * ROWS, last)
        for b in range((stop - start + ROWS - 1) // ROWS):
            row = address + (start + b * ROWS) * stride
            rows = min(ROWS, N - start - b * ROWS)
            _turn_rows(row, stride, B, rows, end, columns, b * size, turned + _WORD * blocks * size)
            for at in range(0, ROWS * stride, LINE):
                prefetch(row + AHEAD + at)
        for q in range(Q):
            bound, count = bounds[q], counts[q]
            for b in range((stop - start + ROWS - 1) // ROWS):
                place = turned + _WORD * b * size, address_of(queries) + _WORD * q * W
                if not differing(address_of(distances), place[0], place[1], W, bound):
                    continue
                r = start + b * ROWS
                for i in range(min(ROWS, stop - r)):
                    if distances[i] < bound and (len(mask) == 0 or mask[r + i]):
                        keys[q * room + count] = key_of(np.float32(-distances[i]), r + i)
                        count += 1
                        if count == room:
                            bound = -np.int64(score_of(cut(keys, q * room, room, k)))
                            count = k
            bounds[q], counts[q] = bound, count
    clear_unused(keys, counts, Q)
