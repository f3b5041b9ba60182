"""Queries of scalar codes as whole numbers, with what the rounding hides."""

import math

import numpy as np
import torch

from gpuzip.loops._jit import jit


def weights(queries, step, middle, half, normalize):
    """Run `weights` of gpuzip.ops.scalar_query: whole (Q, D) int8, and unit, hidden, offset, norm, (Q,)."""
    Q, D = queries.shape
    whole, facts, rounded = np.empty((Q, D), np.int8), np.empty((4, Q), np.float32), np.empty(D)
    asked, columns = queries.contiguous().numpy(), (step.contiguous().numpy(), middle.contiguous().numpy())
    for q in range(Q):
        _weigh(asked[q], *columns, half, normalize, whole[q], rounded, facts.reshape(-1)[q:], Q)
    return torch.from_numpy(whole), *torch.from_numpy(facts)


@jit(
    "void(float32[::1], float32[::1], float64[::1], float64, boolean, int8[::1], float64[::1], "
    "float32[::1], intp)"
)
def _weigh(query, step, middle, half, normalize, whole, weights, facts, apart):
    """Write those of one query. facts: unit, hidden, offset and norm, `apart` places apart."""
    square, most, onto, sums, rest = 0.0, 0.0, 0.0, 0.0, 0.0
    for d in range(len(query)):
        square += np.float64(query[d]) * np.float64(query[d])
    norm, factor = np.float32(math.sqrt(square)), np.float32(1)
    if normalize:
        factor = np.float32(1) / norm
        factor = factor if factor < np.float32(np.inf) else np.float32(0)
    for d in range(len(query)):
        asked = np.float64(query[d] * factor)
        onto += asked * middle[d]
        weights[d] = asked * np.float64(step[d])
        most = max(most, abs(weights[d]))
    unit = np.float32(most / 127)
    inverse = 1 / (most / 127)
    inverse = inverse if inverse < np.inf else 0.0
    for d in range(len(query)):
        value = min(127.0, max(-127.0, np.rint(weights[d] * inverse)))
        whole[d] = np.int8(value)
        sums += value
        apart_from = weights[d] - np.float64(unit) * value
        rest += apart_from * apart_from
    facts[0], facts[apart] = unit, np.float32(math.sqrt(rest) * 1.001)
    facts[2 * apart] = np.float32(onto - half * np.float64(unit) * sums)
    facts[3 * apart] = np.float32(norm * factor)
