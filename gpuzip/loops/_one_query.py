"""Scores of rows for one query: sums of its table's entries in the order of m.

`scan` sums every row. `best_of_groups` gives the same bits, but sums exactly only rows that may be the best
of their group. It first sums tables rounded to bytes in registers for all rows (`_shuffle`). The error of
such a sum is bounded, so a row whose rounded sum is further than that below its group's best cannot win.
"""

import numpy as np

from gpuzip.loops._arrays import flat, local
from gpuzip.loops._jit import jit
from gpuzip.loops._shuffle import ROWS, is_here, sums_of_bytes

_TILE = 1024  # rows per block of rounded sums: a multiple of every group
_MOST_TABLES = 256  # sums of so many bytes fit in 16 bits
_LEAST_GROUP = 16  # in smaller groups too many rows are summed twice
_sums, _scores = local(_TILE, np.uint16), local(64, np.float32)
_tail = local(ROWS * _MOST_TABLES + 8, np.uint8)


def can_filter(M, K, group):
    """Return whether `best_of_groups` supports this CPU, tables and group."""
    return K == 256 and M <= _MOST_TABLES and group >= _LEAST_GROUP and is_here()


def rounded(table):
    """Round (M, 256) float32 to flat bytes, padded to chunks of eight tables; return low, step, margin too.

    The exact sum of entries is within step * margin of low + step * (sum of bytes), also in float32.
    """
    bytes_, line = np.zeros(-(-len(table) // 8) * 8 * 256, np.uint8), np.empty(3)
    _round(table, bytes_, line)
    return bytes_, *line.tolist()


@jit("void(float32[:, ::1], uint8[::1], float64[::1])")
def _round(table, bytes_, line):
    M = len(table)
    low, reach, size = 0.0, 0.0, 0.0
    for m in range(M):
        least = most = table[m, 0]
        for k in range(256):
            least, most = min(least, table[m, k]), max(most, table[m, k])
        low += least
        reach = max(reach, np.float64(most) - np.float64(least))
        size += max(abs(least), abs(most))
    step = reach / 255 if reach > 0 else 1.0
    for m in range(M):
        lowest = table[m, 0]
        for k in range(256):
            lowest = min(lowest, table[m, k])
        least = np.float64(lowest)
        for k in range(256):
            bytes_[m * 256 + k] = np.uint8(min(255.0, (table[m, k] - least) / step + 0.5))
    # Half a step per entry, and M roundings in the float32 sum of M entries.
    line[0], line[1], line[2] = low, step, 0.5001 * M + 2.0**-22 * M * size / step + 1


@jit(
    "void(uint8[:, ::1], float32[:, ::1], uint8[::1], float64, float64, float64, float32[::1], "
    "boolean[::1], float32[:, ::1], float32[::1], intp, float32[::1])"
)
def best_of_groups(codes, table, bytes_, low, step, margin, scale, mask, extra, coef, shift, best):
    """codes (n, M) uint8 -> best (groups,), initially -inf: the exact max of each 2**shift rows."""
    n, M = codes.shape
    chunks = (M + 7) // 8
    sums, tail = _sums(), _tail()
    whole = flat(codes)
    group = 1 << shift
    for first in range(0, n, _TILE):
        last = min(first + _TILE, n)
        for r in range(first, last, ROWS):
            if r + ROWS < n:
                sums_of_bytes(sums, r - first, bytes_, whole, r * M, M, chunks)
            else:  # pad the last rows, because a chunk may reach past the end of the codes
                for i in range(r * M, n * M):
                    tail[i - r * M] = whole[i]
                sums_of_bytes(sums, r - first, bytes_, tail, 0, M, chunks)
        for start in range(first, last, group):
            stop = min(start + group, last)
            if len(scale) == 0 and len(mask) == 0 and len(coef) == 0:
                _settle(codes, table, sums, first, start, stop, margin, best, start >> shift)
            else:
                _settle_scaled(
                    codes,
                    table,
                    sums,
                    first,
                    start,
                    stop,
                    low,
                    step,
                    margin,
                    scale,
                    mask,
                    extra,
                    coef,
                    best,
                    start >> shift,
                )


@jit(
    "void(uint8[:, ::1], float32[:, ::1], uint16[::1], intp, intp, intp, float64, float32[::1], intp)",
    inner=True,
)
def _settle(codes, table, sums, first, start, stop, margin, best, g):
    """Set best[g] to the maximum over rows start to stop."""
    some = sums[start - first : stop - first]
    highest = np.uint16(0)
    for total in some:
        highest = max(highest, total)
    least = np.uint16(max(0.0, highest - np.ceil(2 * margin)))
    for r in range(len(some)):
        if some[r] >= least:
            best[g] = max(best[g], _exact_sum(codes[start + r], table))


@jit(
    "void(uint8[:, ::1], float32[:, ::1], uint16[::1], intp, intp, intp, float64, float64, float64, "
    "float32[::1], boolean[::1], float32[:, ::1], float32[::1], float32[::1], intp)",
    inner=True,
)
def _settle_scaled(
    codes, table, sums, first, start, stop, low, step, margin, scale, mask, extra, coef, best, g
):
    surely = -np.inf  # lower bound for the best score
    for r in range(start, stop):
        if len(mask) == 0 or mask[r]:
            key, error = _about(low + step * sums[r - first], step * margin, r, scale, extra, coef)
            surely = max(surely, key - error)
    for r in range(start, stop):
        if len(mask) == 0 or mask[r]:
            key, error = _about(low + step * sums[r - first], step * margin, r, scale, extra, coef)
            if key + error >= surely:
                best[g] = max(best[g], _exact_key(codes[r], table, r, scale, extra, coef))


@jit("UniTuple(float64, 2)(float64, float64, intp, float32[::1], float32[:, ::1], float32[::1])", inner=True)
def _about(total, error, r, scale, extra, coef):
    """Return the score of row r for a sum `total` within `error`, and a bound for its float32 error."""
    factor = np.float64(scale[r]) if len(scale) else 1.0
    key, error = factor * total, abs(factor) * error
    size = abs(key) + error
    for e in range(len(coef)):
        added = np.float64(extra[r, e]) * np.float64(coef[e])
        key += added
        size += abs(added)
    return key, error + len(coef) * 2.0**-22 * size


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
