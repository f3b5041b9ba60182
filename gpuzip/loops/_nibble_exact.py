"""Exact sums of few rows by tables of 16 entries, 32 rows at a time in registers."""

import numpy as np

from gpuzip.loops._arrays import floats, words
from gpuzip.loops._blocks import LINE
from gpuzip.loops._copy import word_at
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._nibble_memory import CODES, LISTED, SCORES, TABLES, TAKEN, place
from gpuzip.loops._nibbles import exact_sums
from gpuzip.loops._registers import STEP, turn
from gpuzip.loops._vectors256 import ROWS, copy_rows, prefetch


@jit("float32(intp, intp, intp, intp, intp, intp, intp, intp)", inner=True)
def exact_scores(codes, M, factors, count, q, memory, plan, room):
    """Write the scores of listed candidates; return the least of them, NaN if one is not finite."""
    apart()
    start, stride, B = word_at(codes), word_at(codes + 8), word_at(codes + 16)
    wide, rows = B + STEP - 1 & -STEP, place(memory, plan, CODES)
    columns, sums, least = rows + ROWS * wide, floats(rows, ROWS), np.float32(np.inf)
    scores, scale = floats(place(memory, plan, SCORES), room), floats(factors, 0)
    taken, listed = (
        words(place(memory, plan, TAKEN) + 4 * room * q, room),
        words(place(memory, plan, LISTED), room),
    )
    for begin in range(0, count, ROWS):
        for i in range(ROWS):
            row = start + taken[listed[min(begin + i, count - 1)]] * stride
            copy_rows(rows + i * wide, row, stride, B, 1)
            after = start + taken[listed[min(begin + ROWS + i, count - 1)]] * stride
            for j in range(0, B, LINE):
                prefetch(after + j)
            prefetch(after + B - 1)
        for j in range(0, wide, STEP):
            turn(columns + ROWS * j, rows + j, wide)
        exact_sums(rows, columns, place(memory, plan, TABLES) + 64 * q * M, B)
        for i in range(min(ROWS, count - begin)):
            at = listed[begin + i]
            score = sums[i]
            if factors != 0:
                score *= scale[taken[at]]
            if not abs(score) < np.inf:
                return np.float32(np.nan)
            scores[at], least = score, min(score, least)
    return least
