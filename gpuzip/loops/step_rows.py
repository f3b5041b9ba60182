"""Rows by id of codes of equal steps: of 4 and 8 bits as all rows are decoded, of others code by code."""

import numpy as np

from gpuzip.loops._arrays import at
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._row_ids import fact, row_of
from gpuzip.loops.scalar_encode import bytes_of_row, halves_of_row

_bytes, _floats = at(np.uint8), at(np.float32)


@jit("boolean(intp, intp, intp, intp)")
def read(facts, ids, R, out):
    """Write R rows; return whether an id is no row.

    facts: address of the codes, their rows and bytes per row; addresses of start and step, and their length
    D; bits per code; what each byte (4 or 8 bits) or each code is xored with first.
    """
    wide_vectors()
    codes, N, B, D, bits = fact(facts, 0), fact(facts, 1), fact(facts, 2), fact(facts, 5), fact(facts, 6)
    start, step, flip = _floats(fact(facts, 3), D), _floats(fact(facts, 4), D), np.uint8(fact(facts, 7))
    for r in range(R):
        row = row_of(ids, r, N)
        if row < 0:
            return True
        packed, values = _bytes(codes + row * B, B), _floats(out + 4 * r * D, D)
        if bits == 8:
            bytes_of_row(packed, start, step, flip, values)
        elif bits == 4:
            halves_of_row(packed, start, step, flip, values)
        else:
            _codes_of_row(packed, start, step, bits, flip, values)
    return False


@jit("void(uint8[::1], float32[::1], float32[::1], intp, uint8, float32[::1])", inner=True)
def _codes_of_row(packed, start, step, bits, flip, out):
    last = len(packed) - 1
    for d in range(len(out)):  # a code that ends earlier uses no bit of the next byte: any will do
        byte = d * bits >> 3
        word = np.int32(packed[byte]) | np.int32(packed[min(byte + 1, last)]) << 8
        code = (word >> (d * bits & 7)) & ((1 << bits) - 1) ^ np.int32(flip)
        out[d] = (np.float32(code) + np.float32(0.5)) * step[d] + start[d]
