"""Optional columns of a scan, cut to a block of rows and converted for numba."""

import numpy as np


def part(values, start, stop, dtype):
    """Return part of an optional column as an array, or an empty array without one."""
    return np.empty(0, dtype) if values is None else values[start:stop].contiguous().numpy()


def part_of_rows(values, start, stop):
    """Return rows of an optional (N, E) float32 tensor as an array, or one without columns."""
    if values is None:
        return np.empty((stop - start, 0), np.float32)
    return values[start:stop].contiguous().numpy()
