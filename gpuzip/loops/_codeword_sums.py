"""Scores of rows that are sums of codewords, with the bits of tables whose entries are rounded once.

An entry is a sum of products of float32, rounded to float32 from its exact value: it does not depend on the
order of the sum. A sum of float64 tells it, unless it is near the middle of two numbers of float32.
"""

import numpy as np

from gpuzip.loops._jit import apart, jit

_NAN = np.float32(np.nan)
_LEAST = 2.0**-100  # below, numbers of float32 may be further from each other


@jit(
    "float64(float64[::1], intp, float32[::1], intp, intp)",
    inner=True,
    fastmath={"reassoc", "contract"},
)
def _product(query, first, words, at, S):
    """Return the sum of products of S values, each of which float64 holds."""
    own, word, total = query[first : first + S], words[at : at + S], np.float64(0)
    for s in range(S):  # of slices, whose numbers numba need not compare with zero
        total += own[s] * np.float64(word[s])
    return total


@jit("float32(float64[::1], intp, float32[::1], intp, intp, float64, float64)", inner=True)
def entry(query, first, words, at, S, factor, size):
    """Return the sum of S products, rounded once from its exact value; NaN where that is not known.

    size: no less than the sum of the sizes of the products, but for some roundings of float64.
    """
    total, off = _product(query, first, words, at, S), (S + 8) * 2.0**-53 * size
    low, high = np.float32(factor * (total - off)), np.float32(factor * (total + off))
    return low if low == high else _with_more_digits(query, first, words, at, S, factor)


@jit("float32(float64[::1], intp, float32[::1], intp, intp, float64)", inner=True)
def _with_more_digits(query, first, words, at, S, factor):
    """Do what `entry` does, by sums of twice as many digits."""
    apart()
    total = rest = size = lost = np.float64(0)
    for s in range(S):
        product = query[first + s] * np.float64(words[at + s])
        both = total + product
        more = _left(total, product, both)
        total, size = both, size + abs(product)
        both = rest + more
        lost += abs(_left(rest, more, both))
        rest = both
    off, found = S * (S + 4) * 2.0**-104 * size if lost > 0 else 0.0, total + rest
    away = off + 2.0**-51 * abs(found)
    low, high = np.float32(factor * (found - away)), np.float32(factor * (found + away))
    if low == high:
        return low
    lower, upper = np.float64(low), np.float64(high)
    are_next = upper - lower < 2.0**-23 * max(abs(lower), abs(upper)) and abs(lower) > _LEAST
    middle = (lower + upper) / 2
    above_it = (factor * total - middle) + factor * rest
    if not are_next or (lost > 0 and abs(above_it) <= factor * off):
        return _NAN
    if above_it == 0:
        return np.float32(middle)
    return high if above_it > 0 else low


@jit("float64(float64, float64, float64)", inner=True)
def _left(a, b, both):
    """Return what the sum of two numbers lost when it was rounded."""
    part = both - a
    return (a - (both - part)) + (b - part)


@jit(
    "float32(uint8[:, ::1], float32[::1], float64[::1], intp, intp, intp, boolean, float32[::1], "
    "float32[::1], float64[::1], float64, float32, intp)",
    inner=True,
)
def score(codes, words, norms, P, M, S, is_l2, scale, bias, query, length, square, row):
    """Return the score of a row by a query of this norm and squared norm; NaN if tables have to tell it.

    codes (N, P*M), words: codebooks (P, M, 256, S), flat, and the norms of codewords. scale, bias: of rows,
    or empty. query: float32, in float64.
    """
    total, factor = np.float32(0), 2.0 if is_l2 else 1.0
    for p in range(P):
        for m in range(p * M, (p + 1) * M):
            word = m * 256 + np.intp(codes[row, m])
            total += entry(query, p * S, words, word * S, S, factor, length * norms[word])
    if len(scale):
        total *= scale[row]
    if is_l2:
        total += bias[row]
        total -= square
    return total
