"""The bits of a byte as eight bytes of 0 or 1, in a word."""

import numpy as np

from gpuzip.loops._jit import jit


@jit("uint64(intp)", inner=True)
def lowest_first(byte):
    return _ones((np.uint64(byte) * np.uint64(0x0101010101010101)) & np.uint64(0x8040201008040201))


@jit("uint64(intp)", inner=True)
def highest_first(byte):
    return _ones((np.uint64(byte) * np.uint64(0x0101010101010101)) & np.uint64(0x0102040810204080))


@jit("uint64(uint64)", inner=True)
def _ones(word):
    """Return a word with 1 in each byte that is not 0, of bytes with a single bit at most."""
    return ((word + np.uint64(0x7F7F7F7F7F7F7F7F)) >> np.uint64(7)) & np.uint64(0x0101010101010101)
