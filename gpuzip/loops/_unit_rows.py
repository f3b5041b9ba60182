"""Queries as a search in one call takes them."""

import numpy as np

from gpuzip.loops._arrays import floats
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._vectors256 import address_of


@jit("boolean(intp, intp, boolean, float64, float32[::1])", inner=True)
def unit_rows(queries, Q, normalize, most, rows):
    """Copy queries at an address to rows, divided by their norms if asked as `_core.few.unit_rows` has it.

    Return whether all are sound.
    """
    apart()
    D, total = len(rows) // Q, np.float64(0)
    for q in range(Q):
        query = floats(queries + 4 * q * D, D)  # of which a loop makes vectors
        row = floats(address_of(rows) + 4 * q * D, D)
        squares, factor = np.float64(0), np.float32(1)
        for i in range(D):
            squares += np.float64(query[i]) * query[i]
        total += squares
        if normalize:
            norm = np.sqrt(squares)
            factor = np.float32(1 / norm) if norm > 2.0**-127 else np.float32(0)
        for i in range(D):
            row[i] = query[i] * factor
    return total < most
