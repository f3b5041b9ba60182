"""What RaBitQ's searches need of queries: `ops.rabitq_query` as loops."""

import numpy as np
import torch

from gpuzip.loops._jit import jit

METRICS = {"ip": 0, "cosine": 1, "l2": 2}


def columns_of(metric, reach):
    """Return the number of extra columns."""
    return 1 + (metric == "l2") + (reach > 0)


def coefficients(queries, center, metric, reach):
    """Return across (Q, D), coef (Q, E) and shift (Q, 1), as `search.scorers.rabitq_factors` has them."""
    (Q, D), E = queries.shape, columns_of(metric, reach)
    across, coef, shift = (np.empty(size, np.float32) for size in ((Q, D), (Q, E), (Q, 1)))
    asked = queries.contiguous().numpy().reshape(-1)
    found = across.reshape(-1), coef.reshape(-1), shift.reshape(-1)
    fill_coefficients(asked, center.contiguous().numpy(), METRICS[metric], reach, np.inf, *found)
    return tuple(map(torch.from_numpy, (across, coef, shift)))


def sign_tables(queries, W, bits):
    """Make tables (Q, bits * 2W, 16) of queries (Q, D)."""
    Q, D = queries.shape
    tables = np.empty((Q, bits * 2 * W, 16), np.float32)
    fill_sign_tables(queries.contiguous().numpy().reshape(-1), D, W, bits, tables.reshape(-1))
    return torch.from_numpy(tables)


@jit("float64(float32[::1], intp, float32[::1], intp, intp)", inner=True)
def _dot(x, i, y, j, D):
    total = 0.0
    for d in range(D):
        total += np.float64(x[i + d]) * y[j + d]
    return total


@jit("float32(float64)", inner=True)
def _inverse(value):
    """1 / value in float32, and 0 where that is not finite."""
    rounded = np.float32(value)
    return np.float32(1) / rounded if rounded > np.float32(2.0**-128) else np.float32(0)


@jit("boolean(float32[::1], float32[::1], intp, float64, float64, float32[::1], float32[::1], float32[::1])")
def fill_coefficients(queries, center, metric, reach, most, across, coef, shift):
    """Fill across, coef and shift; return whether the squares of all queries add up to less than `most`."""
    D, E, total = len(center), len(coef) // len(shift), 0.0
    inverse = _inverse(_dot(center, 0, center, 0, D))
    for q in range(len(shift)):
        first, factor = q * D, np.float32(1)
        squares = _dot(queries, first, queries, first, D)
        total += squares
        if metric == 1:
            factor = _inverse(np.sqrt(squares))
        for d in range(D):
            across[first + d] = queries[first + d] * factor
        along = np.float32(_dot(across, first, center, 0, D)) * inverse
        coef[q * E], shift[q] = along, np.float32(0)
        if metric == 2:
            apart = 0.0
            for d in range(D):
                value = np.float64(across[first + d] - center[d])
                apart += value * value
            coef[q * E], coef[q * E + 1] = np.float32(2) * (along - np.float32(1)), np.float32(-1)
            shift[q] = -np.float32(apart)
        for d in range(D):
            across[first + d] -= along * center[d]
        if reach > 0:
            size = np.float32(np.sqrt(_dot(across, first, across, first, D)))
            coef[q * E + E - 1] = np.float32(reach) * size
    return total < most


@jit("void(float32[::1], intp, intp, intp, float32[::1])")
def fill_sign_tables(queries, D, W, bits, tables):
    """Fill tables (Q, bits * 2W, 16): a plane's weigh twice as much as those of the next one."""
    for q in range(len(queries) // D):
        first = q * bits * 2 * W * 16
        for m in range(2 * W):
            last = first + ((bits - 1) * 2 * W + m) * 16  # of the last plane, whose weight is 1
            tables[last] = np.float32(0)
            for i in range(4):
                d = 4 * m + i
                value = queries[q * D + d] if d < D else np.float32(0)
                for n in range(1 << i):
                    tables[last + (1 << i) + n] = tables[last + n] + value
                    tables[last + n] -= value
            for bit in range(1, bits):
                for n in range(16):
                    at = last - bit * 2 * W * 16 + n
                    tables[at] = tables[last + n] * np.float32(1 << bit)
