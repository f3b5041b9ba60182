"""Columns that a scan may be given: what belongs to a block of rows, as numba takes it."""

import numpy as np


def part(values, start, stop, dtype):
    """Some of an optional column as an array; an empty one where there is none."""
    return np.empty(0, dtype) if values is None else values[start:stop].contiguous().numpy()


def part_of_rows(values, start, stop):
    """Some rows of an optional (N, E) float32 tensor as an array; one without columns where there is none."""
    if values is None:
        return np.empty((stop - start, 0), np.float32)
    return values[start:stop].contiguous().numpy()
