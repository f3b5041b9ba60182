"""Rows by id of one bit per dimension, each bit one of two levels of its dimension."""

import numpy as np

from gpuzip.loops._arrays import at, local
from gpuzip.loops._bit_bytes import highest_first
from gpuzip.loops._copy import byte_at
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._row_ids import fact, row_of
from gpuzip.loops._vectors256 import address_of

_BYTES = 64  # of codes at a time
_words, _bits, _floats = local(_BYTES, np.uint64), at(np.uint8), at(np.int32)


@jit("boolean(intp, intp, intp, intp)")
def read(facts, ids, R, out):
    """Write R rows; return whether an id is no row.

    facts: address of the codes, their rows and bytes per row; address of the levels (2, D), and D.
    """
    codes, N, B, D = fact(facts, 0), fact(facts, 1), fact(facts, 2), fact(facts, 4)
    zeros, ones, words = fact(facts, 3), fact(facts, 3) + 4 * D, _words()
    for r in range(R):
        row = row_of(ids, r, N)
        if row < 0:
            return True
        for j in range(0, B, _BYTES):
            _spread(words, codes + row * B + j, min(_BYTES, B - j))
            first, count = 32 * j, min(D - 8 * j, 8 * _BYTES)
            levels = _floats(zeros + first, count), _floats(ones + first, count)
            _choose(_bits(address_of(words), count), *levels, _floats(out + 4 * r * D + first, count))
    return False


@jit("void(uint64[::1], intp, intp)", inner=True)
def _spread(words, codes, count):
    for j in range(count):
        words[j] = highest_first(byte_at(codes + j))


@jit("void(uint8[::1], int32[::1], int32[::1], int32[::1])", inner=True)
def _choose(bits, zeros, ones, out):
    """Copy floats as whole numbers, without a branch."""
    wide_vectors()
    for d in range(len(out)):
        mask = -np.int32(bits[d])
        out[d] = (ones[d] & mask) | (zeros[d] & ~mask)
