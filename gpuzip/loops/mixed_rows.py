"""Decodes rows whose columns have codes of several widths, part by part."""

import numpy as np

from gpuzip.loops._arrays import flat
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._vectors256 import address_of
from gpuzip.loops.decode import bits_of, one_table, words_of


@jit(
    "void(int64[:, ::1], int32[::1], float32[::1], float32[::1], uint8[:, ::1], intp, int32[:, ::1], "
    "float32[:, ::1])"
)
def write(parts, levels, scale, offset, packed, first, words, out):
    """Write rows from `first` on as level * scale + offset.

    parts: of each, its first byte and bytes, the bits of a code, the number of codes and its first level.
    Columns after all codes have no level. levels: the bits of floats. words and out: the same memory.
    """
    wide_vectors()
    (N, B), D, target = packed.shape, out.shape[1], flat(words)
    for n in range(len(out)):
        row, at = first + n, 0
        for p in range(len(parts)):
            byte, size, bits, count, start = parts[p]
            table = levels[start : start + (1 << bits)]
            eights = min(words_of(1, (N - row) * B - byte, count, bits), count // 8)
            place = address_of(packed) + row * B + byte
            one_table(place, eights, np.uint64(bits), table, target, np.uint64(n * D + at))
            codes = packed[row : row + 1, byte : byte + size]
            for m in range(8 * eights, count):
                words[n, at + m] = table[bits_of(codes, 0, m, bits)]
            at += count
        for d in range(at, D):
            words[n, d] = 0
        values = out[n]
        for d in range(D):
            values[d] = values[d] * scale[d] + offset[d]
