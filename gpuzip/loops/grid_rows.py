"""Rows of RaBitQ codes: the center and a step times a point of the grid, whose bits lie in planes."""

import numpy as np

from gpuzip.loops._arrays import at, local
from gpuzip.loops._bit_bytes import lowest_first
from gpuzip.loops._copy import byte_at
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._row_ids import fact, row_of
from gpuzip.loops._vectors256 import address_of

_BYTES = 64  # of each plane at a time
_OFFSET = 64 << 9  # the exponent offset of a short float
_words, _grid, _floats = local(_BYTES, np.uint64), at(np.uint8), at(np.float32)
_step = local(1, np.int32)


@jit("boolean(intp, intp, intp, intp)")
def read(facts, ids, R, out):
    """Write R rows; return whether an id is no row.

    facts: address of the signs, their rows, and W, their bytes per row; for two planes, address, bytes
    between rows and bits per dimension; the same two of the steps, which are short floats; address of the
    center, and its length D.
    """
    N, W, D = fact(facts, 1), fact(facts, 2), fact(facts, 12)
    bits, center = fact(facts, 5) + fact(facts, 8), _floats(fact(facts, 11), D)
    words, step = _words(), _step()
    top = np.float32((1 << bits) - 1)
    for r in range(R):
        row = row_of(ids, r, N)
        if row < 0:
            return True
        at_step = fact(facts, 9) + row * fact(facts, 10)
        number = byte_at(at_step) | byte_at(at_step + 1) << 8
        step[0] = (number + _OFFSET) << 14 if number else 0
        factor = _floats(address_of(step), 1)[0]
        for j in range(0, W, _BYTES):
            count = min(_BYTES, W - j)
            words[:count] = np.uint64(0)
            for p in range(2):
                plane = fact(facts, 3 + 3 * p) + row * fact(facts, 4 + 3 * p) + j
                for i in range(fact(facts, 5 + 3 * p)):
                    _shift_in(words, plane + i * W, count)
            first = 8 * j
            wanted = min(D - first, 8 * count)
            values = _floats(out + 4 * (r * D + first), wanted)
            _place(_grid(address_of(words), wanted), top, factor, center[first:], values)
    return False


@jit("void(uint64[::1], intp, intp)", inner=True)
def _shift_in(words, plane, count):
    """Append the bits of `count` bytes to the eight numbers of each word."""
    for j in range(count):
        words[j] = (words[j] << np.uint64(1)) + lowest_first(byte_at(plane + j))


@jit("void(uint8[::1], float32, float32, float32[::1], float32[::1])", inner=True)
def _place(grid, top, step, center, out):
    wide_vectors()
    for d in range(len(grid)):
        point = np.float32(2) * np.float32(np.int32(grid[d])) - top
        out[d] = center[d] + step * point
