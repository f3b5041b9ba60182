"""The k least of a stream of 64-bit keys, in a buffer that is cut back to k whenever it is full.

A key holds a score, so that a higher score has a lesser key, and then the number of the row: the k least keys
are the k best rows, the lowest row first among equals. A cut costs a few nanoseconds per key, whatever k is,
where a heap costs log k.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gpuzip.loops._arrays import counts, floats, local
from gpuzip.loops._jit import apart, jit, out_of_line, wide_vectors

#: Larger than every key of a row.
NONE = np.uint64(2**64 - 1)

MOST_IN_ORDER = 256  # keys that `in_order` puts in order soon enough
#: Results per query of searches of few queries in one call, for which little memory is kept.
MOST_SORTED = 1 << 12
_INSERTED = 12  # keys that are sooner in order by insertion than by ranks
_MANY = 1024  # keys that are parted first, where there are more
_RANKED, _COUNTED = 128, 32  # keys that are put in order at a time, and that are counted in one step

_given, _ranked = local(_RANKED, np.uint64), local(_RANKED, np.uint64)


def room_for(k):
    """Return the keys of a buffer: a few more than k, so that cuts are rare and the bound stays tight."""
    return k + max(8, k // 2)


@intrinsic
def key_of(context, score, row):
    """Return the key of a score, no NaN, and a row below 2**32; -0.0 is 0.0."""

    def generate(context, builder, signature, arguments):
        word, wide = ir.IntType(32), ir.IntType(64)
        score = builder.fadd(arguments[0], ir.Constant(ir.FloatType(), 0.0))
        bits = builder.bitcast(score, word)
        is_negative = builder.icmp_signed("<", bits, word(0))
        bits = builder.select(is_negative, bits, builder.xor(bits, word(0x7FFFFFFF)))
        return builder.or_(builder.shl(builder.zext(bits, wide), wide(32)), arguments[1])

    return types.uint64(types.float32, types.uint64), generate


def keys_of(scores, rows):
    """Return what `key_of` does for arrays of scores and rows."""
    bits = (scores + np.float32(0)).view(np.int32)
    high = np.where(bits < 0, bits, bits ^ 0x7FFFFFFF).view(np.uint32)
    return high.astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64)


@intrinsic
def score_of(context, key):
    """Return the score of a key."""

    def generate(context, builder, signature, arguments):
        word, wide = ir.IntType(32), ir.IntType(64)
        bits = builder.trunc(builder.lshr(arguments[0], wide(32)), word)
        is_negative = builder.icmp_signed("<", bits, word(0))
        bits = builder.select(is_negative, bits, builder.xor(bits, word(0x7FFFFFFF)))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.uint64), generate


@jit("uint64(uint64[::1], intp, intp, intp)", inner=True)
def cut(keys, start, count, k):
    """Move the k least of keys[start : start + count] to the front, unordered; return the greatest."""
    out_of_line()
    wide_vectors()
    some = keys[start : start + count]
    last = _last_of_least(some, k)
    front = _to_front(some, last)
    if front > k:  # several keys are the last one
        _to_front(some[:front], last - np.uint64(1))
    return last


@jit("uint64(uint64[::1], intp)", inner=True)
def _last_of_least(keys, k):
    """Return the greatest of the k least keys, by halves of the range that holds it.

    Each step counts all keys by vectors, without the jumps that a processor foresees badly.
    """
    low, high, count = NONE, np.uint64(0), len(keys)
    for i in range(len(keys)):
        low, high = min(low, keys[i]), max(high, keys[i])
    while count != k and low < high:
        middle = low + ((high - low) >> np.uint64(1))
        count, before, behind = np.intp(0), np.uint64(0), NONE
        for i in range(len(keys)):
            key = keys[i]
            count += key <= middle
            before = max(before, key if key <= middle else np.uint64(0))
            behind = min(behind, key if key > middle else NONE)
        if count < k:
            low = behind
        else:
            high = before
    return high


@jit("intp(uint64[::1], uint64)", inner=True)
def _to_front(keys, last):
    """Move the keys up to this one to the front; return their number."""
    front = np.intp(0)
    for i in range(len(keys)):
        key = keys[i]
        keys[i] = keys[front]
        keys[front] = key
        front += key <= last
    return front


@jit("uint64(uint64[::1], intp, intp, intp)", inner=True)
def in_order(keys, start, count, k):
    """Move the k least of keys[start : start + count] to the front, in order; return the greatest of them."""
    if k > _INSERTED:
        last = start + count
        for first in range(start, start + k, _MANY):
            end = min(first + _MANY, start + k)
            cut(keys, first, last - first, end - first)
            for at in range(first, end, _RANKED):
                some = min(_RANKED, end - at)
                cut(keys, at, end - at, some)
                _rank(keys, at, some)
        return keys[start + k - 1]
    cut(keys, start, count, k)
    for i in range(start + 1, start + k):
        key, at = keys[i], i
        while at > start and keys[at - 1] > key:
            keys[at] = keys[at - 1]
            at -= 1
        keys[at] = key
    return keys[start + k - 1]


@jit("void(uint64[::1], intp, intp)", inner=True)
def _rank(keys, start, count):
    """Put keys[start : start + count] in order, at most _RANKED: vectors count for each how many are less."""
    out_of_line()
    wide_vectors()
    given, ranked, whole, last = _given(), _ranked(), -(-count // _COUNTED), np.uint64(0)
    for i in range(whole * _COUNTED):
        given[i], ranked[i] = keys[start + i] if i < count else NONE, 0
    for i in range(count):
        key, rank = given[i], np.intp(0)
        for j in range(whole * _COUNTED):
            rank += given[j] < key
        ranked[rank] = key
    for i in range(count):
        last = max(last, ranked[i])  # of equal keys only the first is there
        keys[start + i] = last


@jit("void(float32[::1])", inner=True)
def to_distances(scores):
    """Turn scores by "l2" into squared distances."""
    for i in range(len(scores)):
        scores[i] = max(-scores[i], np.float32(0)) + np.float32(0)  # no -0.0


@jit("void(uint64[::1], intp[::1], intp)", inner=True)
def clear_unused(keys, counts, Q):
    """Set the keys of each of Q queries after its count to NONE. keys: as many for each query."""
    apart()
    room = len(keys) // Q
    for q in range(Q):
        for i in range(q * room + counts[q], (q + 1) * room):
            keys[i] = NONE


def best_of(parts, k):
    """Parts (Q, room) of keys, unused places NONE -> scores (Q, k) float32, rows (Q, k) int64, best first."""
    keys = parts[0] if len(parts) == 1 else np.concatenate(parts, 1)
    keys.sort(axis=1)
    scores, rows = np.empty((len(keys), k), np.float32), np.empty((len(keys), k), np.int64)
    read(keys.reshape(-1), k, scores.reshape(-1), rows.reshape(-1))
    return scores, rows


@jit("void(uint64[::1], intp, float32[::1], int64[::1])")
def read(keys, k, scores, rows):
    """Write the scores and rows of the first k keys of each query; -inf and 0 where there is none."""
    Q = len(rows) // k
    for q in range(Q):
        for i in range(k):
            key = keys[q * (len(keys) // Q) + i]
            scores[q * k + i] = score_of(key) if key != NONE else np.float32(-np.inf)
            rows[q * k + i] = np.int64(key & np.uint64(0xFFFFFFFF)) if key != NONE else 0


@jit("void(uint64[::1], intp, intp, boolean, intp, intp)", inner=True)
def answer(keys, Q, k, are_distances, values, rows):
    """Write the scores, or distances, and rows of the k least keys of each query, in order, to addresses."""
    room = len(keys) // Q
    for q in range(Q):
        in_order(keys, q * room, room, k)
    write(keys, Q, k, are_distances, values, rows)


@jit("void(uint64[::1], intp, intp, boolean, intp, intp)", inner=True)
def write(keys, Q, k, are_distances, values, rows):
    """Do what `read` does to addresses, with distances if asked."""
    scores = floats(values, Q * k)
    read(keys, k, scores, counts(rows, Q * k))
    if are_distances:
        to_distances(scores)
