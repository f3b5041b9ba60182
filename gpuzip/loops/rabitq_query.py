"""What a RaBitQ scorer needs of queries: their part across the center, coefficients, and tables of signs."""

import math

import numpy as np
import torch

from gpuzip.loops._jit import jit

_METRICS = ("ip", "cosine", "l2")


def coefficients(queries, center, metric, reach):
    """Return across (Q, D), coef (Q, E) and shift (Q, 1) of gpuzip.search.scorers.rabitq_factors."""
    (Q, D), E = queries.shape, 1 + (metric == "l2") + (reach > 0)
    across, coef, shift = np.empty((Q, D), np.float32), np.empty((Q, E), np.float32), np.empty(Q, np.float32)
    asked, middle = queries.contiguous().numpy(), center.contiguous().numpy()
    for q in range(Q):
        _coefficients(asked[q], middle, _METRICS.index(metric), reach, across[q], coef[q], shift[q : q + 1])
    return torch.from_numpy(across), torch.from_numpy(coef), torch.from_numpy(shift[:, None])


def sign_tables(queries, W, bits):
    """Make tables (Q, bits * 2W, 16) of queries (Q, D), D <= 8W, as `ops.rabitq_query` has it."""
    Q = len(queries)
    tables = np.empty((Q, bits * 2 * W, 16), np.float32)
    asked = queries.contiguous().numpy()
    for q in range(Q):
        _tables(asked[q], bits, tables[q].reshape(-1))
    return torch.from_numpy(tables)


@jit("float64(float32[::1], float32[::1])", inner=True)
def _dot(x, y):
    total = 0.0
    for d in range(len(x)):
        total += np.float64(x[d]) * np.float64(y[d])
    return total


@jit("float32(float32)", inner=True)
def _inverse(x):
    inverse = np.float32(1) / x
    return inverse if abs(inverse) < np.float32(np.inf) else np.float32(0)


@jit("void(float32[::1], float32[::1], intp, float64, float32[::1], float32[::1], float32[::1])")
def _coefficients(query, center, metric, reach, across, coef, shift):
    """Write those of one query. metric: its place in _METRICS."""
    factor = np.float32(1)
    if metric == 1:
        factor = _inverse(np.float32(math.sqrt(_dot(query, query))))
    for d in range(len(query)):
        across[d] = query[d] * factor
    along = np.float32(_dot(across, center)) * _inverse(np.float32(_dot(center, center)))
    coef[0], shift[0] = along, np.float32(0)
    if metric == 2:
        coef[0], coef[1] = np.float32(2) * (along - np.float32(1)), np.float32(-1)
        square = 0.0
        for d in range(len(query)):
            apart = np.float64(query[d] - center[d])
            square += apart * apart
        shift[0] = -np.float32(square)
    for d in range(len(query)):
        across[d] -= along * center[d]
    if reach > 0:
        coef[len(coef) - 1] = np.float32(reach) * np.float32(math.sqrt(_dot(across, across)))


@jit("void(float32[::1], intp, float32[::1])")
def _tables(query, bits, tables):
    """Write tables of one query, 16 entries for each four dimensions; the first plane weighs most."""
    nibbles, four = len(tables) // (16 * bits), np.empty(4, np.float32)
    for t in range(nibbles):
        for i in range(4):
            four[i] = query[4 * t + i] if 4 * t + i < len(query) else np.float32(0)
        for code in range(16):
            total = np.float32(0)
            for i in range(4):
                total += four[i] if code >> i & 1 else -four[i]
            for plane in range(bits):
                tables[(plane * nibbles + t) * 16 + code] = total * np.float32(1 << (bits - 1 - plane))
