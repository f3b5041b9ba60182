"""The row that an id means, for loops that read rows by id."""

from gpuzip.loops._copy import word_at
from gpuzip.loops._jit import jit


@jit("intp(intp, intp, intp)", inner=True)
def row_of(ids, r, N):
    """Return the row of id r, counted from the end if it is negative; -1 for an id that is no row."""
    row = word_at(ids + 8 * r)
    row += N if row < 0 else 0
    return row if 0 <= row < N else -1


@jit("intp(intp, intp)", inner=True)
def fact(facts, i):
    """Return the whole number i of those at an address."""
    return word_at(facts + 8 * i)
