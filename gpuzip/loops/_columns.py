"""Columns that a scan may be given: what belongs to a block of rows, as numba takes it."""

import numpy as np


def part(values, start, stop, dtype):
    """Some of an optional column as an array; an empty one where there is none."""
    return np.empty(0, dtype) if values is None else values[start:stop].contiguous().numpy()
