"""Walsh-Hadamard transforms by sums and differences, whose digits for a row do not depend on other rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.few import is_plain
from gpuzip._core.parallel import map_blocks
from gpuzip.ops._dispatch import at_once, loops_are_used, loops_of

Array = np.ndarray[Any, Any]
Transform = Callable[[Array], Array]

_BLOCK = 1 << 16  # values that stay in cache


def walsh(x: Tensor, signs: Tensor) -> Tensor:
    """Flip signs and transform, in rounds: (N, D) float32, (R, D) bool -> (N, D).

    A round covers the largest power of two of columns, the first ones and the last ones by turns.
    """
    if is_plain(x) and is_plain(signs):
        return torch.from_numpy(walsh_of_few(signs)(x.numpy()))
    for i, flips in enumerate(signs):
        x = torch.where(flips, -x, x)
        butterflies(x[:, columns_of_round(x.shape[1], i)])
    return x


def walsh_back(x: Tensor, signs: Tensor) -> Tensor:
    """Return the inverse of `walsh`."""
    if is_plain(x) and is_plain(signs):
        return torch.from_numpy(walsh_back_of(signs)(x.numpy()))
    x = x.clone()
    for i in reversed(range(len(signs))):
        butterflies(x[:, columns_of_round(x.shape[1], i)])
        x = torch.where(signs[i], -x, x)
    return x


def walsh_of_few(signs: Tensor) -> Transform:
    """Return a function that does what `walsh` does by signs on the CPU, for arrays, to the same bits."""
    return _chosen(partial(_by_numpy, signs.numpy(), False), lambda: loops_of("walsh").of_few(signs))


def walsh_back_of(signs: Tensor) -> Transform:
    """Return a function that does what `walsh_back` does, as `walsh_of_few` does for `walsh`."""
    return _chosen(partial(_by_numpy, signs.numpy(), True), lambda: loops_of("walsh").back_of(signs))


def _chosen(plain: Transform, make: Callable[[], Transform]) -> Transform:
    """Return a function that runs loops, or plain numpy where there are none or while they are compiled."""
    ready: list[Transform] = []

    def by_either(x: Array) -> Array:
        if not loops_are_used():
            return plain(x)
        transform = make()
        found = transform(x)
        ready.append(transform)
        return found

    def transformed(x: Array) -> Array:
        if ready and loops_are_used():
            return ready[0](x)
        return at_once("walsh", partial(by_either, x), lambda: partial(by_either, x[:1].copy()))

    return transformed


def _by_numpy(signs: Array, back: bool, x: Array) -> Array:
    """The same by numpy: columns of a block of rows lie together."""
    out = np.empty(x.shape, np.float32)
    flips = np.where(signs, np.float32(-1), np.float32(1))[:, :, None]

    def one_block(start: int, stop: int) -> None:
        columns = np.array(x[start:stop].T, order="C")
        with np.errstate(over="ignore", invalid="ignore"):  # as torch
            for i in reversed(range(len(signs))) if back else range(len(signs)):
                some = columns[columns_of_round(len(columns), i)]
                if back:
                    _butterflies_of_columns(some)
                columns *= flips[i]
                if not back:
                    _butterflies_of_columns(some)
        out[start:stop] = columns.T

    map_blocks(one_block, len(x), max(1, _BLOCK // x.shape[1]), lone_here=True)
    return out


def _butterflies_of_columns(x: Array) -> None:
    """Transform (2**p, n) in place."""
    (width, n), half = x.shape, 1
    values, spare = x, np.empty_like(x)
    while half < width:
        (a, b), into = (part.reshape(-1, 2, half, n).swapaxes(0, 1) for part in (values, spare))
        np.add(a, b, out=into[0])
        np.subtract(a, b, out=into[1])
        values, spare, half = spare, values, 2 * half
    np.multiply(values, np.float32(1 / math.sqrt(width)), out=x)


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
