"""The k least of a stream of 64-bit keys, in a buffer that is cut back to k whenever it is full.

A key holds a score, so that a higher score has a lesser key, and then the number of the row: the k least keys
are the k best rows, the lowest row first among equals. A cut costs a few nanoseconds per key, whatever k is,
where a heap costs log k.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gpuzip.loops._jit import jit

#: Larger than every key of a row.
NONE = np.uint64(2**64 - 1)


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


@jit("uint64(uint64[::1], intp, intp, intp)")
def cut(keys, start, count, k):
    """Move the k least of keys[start : start + count] to the front, unordered; return the greatest."""
    low, high, last = start, start + count - 1, start + k - 1
    while low < high:
        pivot, i, j = keys[(low + high) >> 1], low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if last <= j:
            high = j
        elif last >= i:
            low = i
        else:
            break
    return keys[last]


def best_of(parts, k):
    """Parts (Q, room) of keys, unused places NONE -> scores (Q, k) float32, rows (Q, k) int64, best first."""
    keys = parts[0] if len(parts) == 1 else np.concatenate(parts, 1)
    keys.sort(axis=1)
    keys = keys[:, :k]
    bits = (keys >> np.uint64(32)).astype(np.uint32).view(np.int32)
    scores = np.where(bits < 0, bits, bits ^ np.int32(0x7FFFFFFF)).view(np.float32)
    rows = (keys & np.uint64(0xFFFFFFFF)).view(np.int64)
    absent = keys == NONE
    if absent.any():
        scores[absent], rows[absent] = -np.inf, 0
    return scores, rows
