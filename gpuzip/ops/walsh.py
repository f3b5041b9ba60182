"""Walsh-Hadamard transforms by sums and differences, whose digits for a row do not depend on other rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.few import is_plain
from gpuzip.ops._dispatch import loops_are_used, loops_of

Array = np.ndarray[Any, Any]

_FEW = 1 << 14  # values


def walsh(x: Tensor, signs: Tensor) -> Tensor:
    """Flip signs and transform, in rounds: (N, D) float32, (R, D) bool -> (N, D).

    A round covers the largest power of two of columns, the first ones and the last ones by turns.
    """
    if is_plain(x) and loops_are_used():
        transformed: Tensor = loops_of("walsh").walsh(x, signs)
        return transformed
    if is_plain(x) and is_plain(signs) and x.numel() <= _FEW:
        return torch.from_numpy(_by_numpy(x.numpy(), signs.numpy()))
    for i, flips in enumerate(signs):
        x = torch.where(flips, -x, x)
        butterflies(x[:, columns_of_round(x.shape[1], i)])
    return x


def walsh_of_few(signs: Tensor) -> Callable[[Array], Array]:
    """Return a function that does what `walsh` does for arrays of few rows, for loops that run."""
    few: Callable[[Array], Array] = loops_of("walsh").of_few(signs)
    return few


@np.errstate(over="ignore", invalid="ignore")  # as torch
def _by_numpy(x: Array, signs: Array) -> Array:
    """The same by numpy, whose calls take less time than torch's."""
    for i, flips in enumerate(signs):
        x = np.where(flips, -x, x)
        _butterflies_of_few(x[:, columns_of_round(x.shape[1], i)])
    return x


def walsh_back(x: Tensor, signs: Tensor) -> Tensor:
    """Return the inverse of `walsh`."""
    x = x.clone()
    for i in reversed(range(len(signs))):
        butterflies(x[:, columns_of_round(x.shape[1], i)])
        x = torch.where(signs[i], -x, x)
    return x


def columns_of_round(D: int, i: int) -> slice:
    """Return the columns that round i transforms: 2**p of them."""
    width = 1 << (D.bit_length() - 1)
    first = (D - width) * (i % 2)
    return slice(first, first + width)


def butterflies(x: Tensor) -> None:
    """Transform (N, 2**p) in place."""
    width = x.shape[1]
    half = 1
    while half < width:
        pairs = x.unflatten(1, (-1, 2, half))
        a, b = pairs[:, :, 0], pairs[:, :, 1]
        both = a + b
        torch.sub(a, b, out=b)
        a.copy_(both)
        half *= 2
    x.mul_(1 / math.sqrt(width))


def _butterflies_of_few(x: Array) -> None:
    width, half = x.shape[1], 1
    while half < width:
        pairs = x.reshape(len(x), width // (2 * half), 2, half)  # a view: columns lie together
        a, b = pairs[:, :, 0], pairs[:, :, 1]
        both = a + b
        np.subtract(a, b, out=b)
        a[...] = both
        half *= 2
    x *= np.float32(1 / math.sqrt(width))
