"""Rows by id of 16-bit floats, as float32."""

import numpy as np

from gpuzip.loops._arrays import at
from gpuzip.loops._jit import jit
from gpuzip.loops._row_ids import fact, row_of
from gpuzip.loops.half_topk import of_brain, of_half

_halves, _floats = at(np.uint16), at(np.float32)


@jit("boolean(intp, intp, intp, intp)")
def read(facts, ids, R, out):
    """Write R rows; return whether an id is no row.

    facts: address of the values, and their rows; columns; whether they are bfloat16.
    """
    halves, N, D, is_brain = fact(facts, 0), fact(facts, 1), fact(facts, 2), fact(facts, 3)
    for r in range(R):
        row = row_of(ids, r, N)
        if row < 0:
            return True
        values, found = _halves(halves + 2 * row * D, D), _floats(out + 4 * r * D, D)
        if is_brain:
            for d in range(D):
                found[d] = of_brain(values[d])
        else:
            for d in range(D):
                found[d] = of_half(values[d])
    return False
