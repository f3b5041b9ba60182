"""Rows by id that are sums of codewords, added stage by stage as all rows are."""

import numpy as np

from gpuzip.loops._arrays import at
from gpuzip.loops._copy import byte_at
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._row_ids import fact, row_of

_floats = at(np.float32)


@jit("boolean(intp, intp, intp, intp)")
def read(facts, ids, R, out):
    """Write R rows; return whether an id is no row.

    facts: address of the codes, their rows and bytes per row; address of the codebooks (P, M, K, S), P and M;
    bits per code; S.
    """
    codes, N, B, words = fact(facts, 0), fact(facts, 1), fact(facts, 2), fact(facts, 3)
    P, M, nbits, S = fact(facts, 4), fact(facts, 5), fact(facts, 6), fact(facts, 7)
    for r in range(R):
        row = row_of(ids, r, N)
        if row < 0:
            return True
        for p in range(P):
            total = _floats(out + 4 * (r * P + p) * S, S)
            total[:] = np.float32(0)
            for m in range(p * M, (p + 1) * M):
                code = _code(codes + row * B, B, m, nbits)
                _add(total, _floats(words + 4 * (((m << nbits) + code) * S), S))
    return False


@jit("intp(intp, intp, intp, intp)", inner=True)
def _code(row, B, m, nbits):
    """A code that ends earlier uses no bit of the next bytes, so at the end of a row any byte will do."""
    byte = m * nbits >> 3
    bits = byte_at(row + byte) | byte_at(row + min(byte + 1, B - 1)) << 8
    bits |= byte_at(row + min(byte + 2, B - 1)) << 16
    return (bits >> (m * nbits & 7)) & ((1 << nbits) - 1)


@jit("void(float32[::1], float32[::1])", inner=True)
def _add(total, word):
    wide_vectors()
    for s in range(len(total)):
        total[s] += word[s]
