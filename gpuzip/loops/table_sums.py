"""Scores of few rows by look-up tables that are not made: the entries that `adc_gather` would read.

Each entry is computed as `lookup_tables` does, and the sums run in the same order, so scores have the same
bits.
"""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._columns import part
from gpuzip.loops._copy import word_at
from gpuzip.loops._jit import jit
from gpuzip.loops._least import NONE, best_of, cut, key_of, score_of
from gpuzip.loops._vectors256 import address_of
from gpuzip.loops.decode import bits_of, words_of

_PAIRS = 1 << 9  # of queries and rows per block


def table_sums(codes, centroids, queries, is_l2, scale, mask, ids):
    """Score rows ids (Q, R) as `adc_gather` with the tables of `lookup_tables`; -inf for invalid ids.

    codes (N, B) uint8, centroids (M, K, S), queries (Q, M*S) float32, scale (N,) or None, mask (N,) or None.
    """
    Q, R = ids.shape
    scores = torch.empty((Q, R), dtype=torch.float32, device="cpu")
    wanted, found = ids.contiguous().numpy(), scores.numpy()
    of_codes, asked = arrays_of(codes, centroids, is_l2, scale, mask), queries.contiguous().numpy()

    def some_queries(start, stop):
        _score(*of_codes, asked[start:stop], wanted[start:stop], found[start:stop])

    map_blocks(some_queries, Q, max(1, _PAIRS // max(1, R)), with_caller=True)
    return scores


def closest_by_tables(codes, centroids, queries, is_l2, scale, mask, estimates, rows, ceilings, k):
    """Find the k best rows among candidates by the scores of `table_sums`; see `loops.closest.closest`."""
    (Q, taken), N = rows.shape, len(codes)
    of_codes, asked = arrays_of(codes, centroids, is_l2, scale, mask), queries.contiguous().numpy()
    known, wanted, bounds = (part.contiguous().numpy() for part in (estimates, rows, ceilings))
    keys, least = np.empty((Q, taken), np.uint64), np.empty(Q, np.float32)

    def some_queries(start, stop):
        some = slice(start, stop)
        own = keys[some].reshape(-1), least[some]
        closest_of_some(*of_codes, asked[some], known[some], wanted[some], bounds[some], k, *own)

    map_blocks(some_queries, Q, max(1, _PAIRS // k), with_caller=True)
    unsure = (least <= bounds[:, -1]) & (known[:, -1] > -np.inf) if taken < N else None
    found = tuple(map(torch.from_numpy, best_of([keys], k)))
    return *found, None if unsure is None or not unsure.any() else torch.from_numpy(unsure)


def arrays_of(codes, centroids, is_l2, scale, mask):
    """Return the arguments of loops for codes, which start with them."""
    M, K, S = centroids.shape
    return (
        codes.contiguous().numpy(),
        centroids.contiguous().numpy().reshape(-1),
        S,
        M,
        K.bit_length() - 1,
        is_l2,
        part(scale, 0, len(codes), np.float32),
        part(mask, 0, len(codes), np.bool_),
    )


_CODES = "uint8[:, ::1], float32[::1], intp, intp, intp, boolean, float32[::1], boolean[::1]"


@jit(f"void({_CODES}, float32[:, ::1], int64[:, ::1], float32[:, ::1])")
def _score(codes, centroids, S, M, nbits, is_l2, scale, mask, queries, ids, scores):
    for q in range(len(ids)):
        for i in range(0, ids.shape[1], 2):
            last = min(i + 1, ids.shape[1] - 1)
            rows = ids[q, i], ids[q, last]
            found = _scores(codes, centroids, S, M, nbits, is_l2, scale, mask, queries[q], rows[0], rows[1])
            scores[q, i], scores[q, last] = found


@jit(
    f"void({_CODES}, float32[:, ::1], float32[:, ::1], int64[:, ::1], float32[:, ::1], intp, uint64[::1], "
    "float32[::1])"
)
def closest_of_some(
    codes, centroids, S, M, nbits, is_l2, scale, mask, queries, estimates, rows, bounds, k, keys, least
):
    """Score the first k rows, and others that may be better; set their keys, and `least` to the k-th best."""
    Q, taken = rows.shape
    for q in range(Q):
        start, count, worst = q * taken, 0, -np.float32(np.inf)
        while count < taken and estimates[q, count] > -np.inf and (count < k or bounds[q, count] >= worst):
            row = rows[q, count]
            other = rows[q, count + 1] if count + 1 < taken else row
            found = _scores(codes, centroids, S, M, nbits, is_l2, scale, mask, queries[q], row, other)
            keys[start + count] = key_of(found[0], row)
            count += 1
            if count < k and estimates[q, count] > -np.inf:
                keys[start + count] = key_of(found[1], other)
                count += 1
            if count == k:
                worst = score_of(cut(keys, start, k, k))
        for i in range(count, taken):
            keys[start + i] = NONE
        least[q] = score_of(cut(keys, start, count, k)) if count >= k else -np.float32(np.inf)


@jit(
    f"UniTuple(float32, 2)({_CODES}, float32[::1], intp, intp)",
    inner=True,
)
def _scores(codes, centroids, S, M, nbits, is_l2, scale, mask, query, row, other):
    """Score two rows; -inf if one is no row or forbidden."""
    N, none = len(codes), -np.float32(np.inf)
    known = 0 <= row < N and (len(mask) == 0 or mask[row])
    known_other = 0 <= other < N and (len(mask) == 0 or mask[other])
    first, second = row if known else 0, other if known_other else 0
    if not known and not known_other:
        return none, none
    if nbits == 4:
        total = _sum_of_pairs(codes[first], centroids, S, M, is_l2, query)
        rest = _sum_of_pairs(codes[second], centroids, S, M, is_l2, query)
    elif S == 1 and nbits <= 8:
        total, rest = _sums_of_values(codes, first, second, centroids, M, nbits, is_l2, query)
    else:
        total = _sum(codes, first, centroids, S, M, nbits, is_l2, query)
        rest = _sum(codes, second, centroids, S, M, nbits, is_l2, query)
    if len(scale):
        total *= scale[first]
        rest *= scale[second]
    return total if known else none, rest if known_other else none


@jit("float32(float32[::1], uint64, intp, boolean, float32[::1], intp)", inner=True)
def _entry(centroids, at, S, is_l2, query, first):
    """Return the entry of a table for the centroid that starts at `at`."""
    value = np.float32(0)
    for s in range(S):
        asked, own = query[first + s], centroids[at + np.uint64(s)]
        if is_l2:
            value -= (asked - own) * (asked - own)
        elif s == 0:
            value = asked * own
        else:
            value += asked * own
    return value


@jit("float32(uint8[::1], float32[::1], intp, intp, boolean, float32[::1])", inner=True)
def _sum_of_pairs(row, centroids, S, M, is_l2, query):
    """Two codes of four bits share a byte, and their entries are added before all others."""
    total, size = np.float32(0), np.uint64(16 * S)
    for j in range((M + 1) // 2):
        byte, m = np.uint64(row[j]), 2 * j
        low = np.uint64(m) * size + (byte & np.uint64(15)) * np.uint64(S)
        pair = _entry(centroids, low, S, is_l2, query, m * S)
        if m + 1 < M:
            high = np.uint64(m + 1) * size + (byte >> np.uint64(4)) * np.uint64(S)
            pair += _entry(centroids, high, S, is_l2, query, (m + 1) * S)
        total += pair
    return total


@jit("float32(float32, float32, boolean)", inner=True)
def _value(asked, own, is_l2):
    return -((asked - own) * (asked - own)) if is_l2 else asked * own


@jit(
    "UniTuple(float32, 2)(uint8[:, ::1], intp, intp, float32[::1], intp, intp, boolean, float32[::1])",
    inner=True,
)
def _sums_of_values(codes, row, other, centroids, M, nbits, is_l2, query):
    """Sum the entries of two rows together, because each sum waits for its last addition."""
    (N, B), total, rest, bits = codes.shape, np.float32(0), np.float32(0), np.uint64(nbits)
    size, base, start = np.uint64(1) << bits, address_of(codes), np.uint64(0)
    eights, mask = words_of(N - max(row, other), B, M, nbits), size - np.uint64(1)
    for j in range(eights):
        word = np.uint64(word_at(base + row * B + j * nbits))
        second, first = np.uint64(word_at(base + other * B + j * nbits)), np.uint64(8) * np.uint64(j)
        for i in range(8):
            asked = query[first + np.uint64(i)]
            total += _value(asked, centroids[start + (word & mask)], is_l2)
            rest += _value(asked, centroids[start + (second & mask)], is_l2)
            word >>= bits
            second >>= bits
            start += size
    for m in range(8 * eights, M):
        first = np.uint64(m << nbits)
        total += _value(query[m], centroids[first + np.uint64(bits_of(codes, row, m, nbits))], is_l2)
        rest += _value(query[m], centroids[first + np.uint64(bits_of(codes, other, m, nbits))], is_l2)
    return total, rest


@jit("float32(uint8[:, ::1], intp, float32[::1], intp, intp, intp, boolean, float32[::1])", inner=True)
def _sum(codes, row, centroids, S, M, nbits, is_l2, query):
    total = np.float32(0)
    for m in range(M):
        code = np.uint64(codes[row, m]) if nbits == 8 else np.uint64(bits_of(codes, row, m, nbits))
        at = (np.uint64(m << nbits) + code) * np.uint64(S)
        total += _entry(centroids, at, S, is_l2, query, m * S)
    return total
