"""Rounds of sign flips and Walsh-Hadamard transforms."""

import math

import numpy as np
import torch

from gpuzip.loops._jit import jit


def walsh(x, signs):
    """Transform rows (N, D) float32 by signs (R, D) bool: a copy of (N, D)."""
    return torch.from_numpy(of_few(signs)(x.numpy()))


def of_few(signs):
    """Return a function that transforms arrays (N, D) float32 by signs (R, D) bool, as `walsh` does."""
    flips, D = signs.contiguous().numpy().reshape(-1), signs.shape[1]

    def transformed(x):
        out = np.array(x, order="C")
        rounds(out.reshape(-1), flips, D)
        return out

    return transformed


@jit("void(float32[::1], boolean[::1], intp)")
def rounds(x, signs, D):
    """Transform rows of D values in place."""
    width = 1
    while 2 * width <= D:
        width *= 2
    scale = np.float32(1 / math.sqrt(width))
    for row in range(len(x) // D):
        for i in range(len(signs) // D):
            flips, values = signs[i * D : (i + 1) * D], x[row * D : (row + 1) * D]
            for d in range(D):
                values[d] = -values[d] if flips[d] else values[d]
            part, half = values[(D - width) * (i % 2) :][:width], 1
            if width >= 4:
                _transform_fours(part)
                half = 4
            while half < width:
                for first in range(0, width, 2 * half):
                    low, high = part[first : first + half], part[first + half : first + 2 * half]
                    for n in range(half):
                        both = low[n] + high[n]
                        high[n] = low[n] - high[n]
                        low[n] = both
                half *= 2
            for n in range(width):
                part[n] *= scale


@jit("void(float32[::1])", inner=True)
def _transform_fours(part):
    """Transform each four values, whose loops would take longer than their sums."""
    for i in range(0, len(part), 4):
        sum0, sum1 = part[i] + part[i + 1], part[i + 2] + part[i + 3]
        difference0, difference1 = part[i] - part[i + 1], part[i + 2] - part[i + 3]
        part[i], part[i + 1] = sum0 + sum1, difference0 + difference1
        part[i + 2], part[i + 3] = sum0 - sum1, difference0 - difference1
