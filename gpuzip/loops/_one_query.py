"""Scores of rows for one query: sums of its table's entries in the order of m."""

import numpy as np

from gpuzip.loops._arrays import local
from gpuzip.loops._jit import jit

_scores = local(64, np.float32)


@jit(
    "void(uint8[:, ::1], float32[:, ::1], float32[::1], boolean[::1], float32[:, ::1], float32[::1], "
    "intp, float32[::1])",
    "void(int32[:, ::1], float32[:, ::1], float32[::1], boolean[::1], float32[:, ::1], float32[::1], "
    "intp, float32[::1])",
)
def scan(codes, table, scale, mask, extra, coef, shift, best):
    n, M = codes.shape
    scores = _scores()
    for first in range(0, n, 64):
        last = min(first + 64, n)
        fours = (last - first) // 4
        for i in range(fours):  # four independent sums at a time
            r = first + 4 * i
            code0, code1, code2, code3 = codes[r], codes[r + 1], codes[r + 2], codes[r + 3]
            sum0 = sum1 = sum2 = sum3 = np.float32(0)
            for m in range(M):
                entries = table[m]
                sum0 += entries[code0[m]]
                sum1 += entries[code1[m]]
                sum2 += entries[code2[m]]
                sum3 += entries[code3[m]]
            scores[4 * i], scores[4 * i + 1], scores[4 * i + 2], scores[4 * i + 3] = sum0, sum1, sum2, sum3
        for r in range(first + 4 * fours, last):
            scores[r - first] = _exact_sum(codes[r], table)
        for r in range(first, last):
            score = scores[r - first]
            if len(scale):
                score *= scale[r]
            for e in range(len(coef)):
                score += extra[r, e] * coef[e]
            if score > best[r >> shift] and (len(mask) == 0 or mask[r]):
                best[r >> shift] = score


@jit(
    "void(uint8[:, ::1], float32[:, ::1], float32[::1], boolean[::1], float32[:, ::1], float32[::1], "
    "intp, int64[::1], float32[::1])",
    "void(int32[:, ::1], float32[:, ::1], float32[::1], boolean[::1], float32[:, ::1], float32[::1], "
    "intp, int64[::1], float32[::1])",
)
def gather(codes, table, scale, mask, extra, coef, N, ids, scores):
    for r in range(len(ids)):
        n = ids[r]
        scores[r] = -np.inf
        if 0 <= n < N and (len(mask) == 0 or mask[n]):
            scores[r] = _exact_key(codes[r], table, n, scale, extra, coef)


@jit(
    "float32(uint8[::1], float32[:, ::1], intp, float32[::1], float32[:, ::1], float32[::1])",
    "float32(int32[::1], float32[:, ::1], intp, float32[::1], float32[:, ::1], float32[::1])",
    inner=True,
)
def _exact_key(codes, table, n, scale, extra, coef):
    """Return the score of row n with these codes."""
    key = _exact_sum(codes, table)
    if len(scale):
        key *= scale[n]
    for e in range(len(coef)):
        key += extra[n, e] * coef[e]
    return key


@jit("float32(uint8[::1], float32[:, ::1])", "float32(int32[::1], float32[:, ::1])", inner=True)
def _exact_sum(codes, table):
    """Sum table[m, codes[m]] in the order of m, in float32."""
    total = np.float32(0)
    for m in range(len(codes)):
        total += table[m, codes[m]]
    return total
