"""Rounds of sign flips and Walsh-Hadamard transforms: eight rows at a time, one per lane of a register."""

import math

import numpy as np
import torch
from numba import types

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._blocks import scratch
from gpuzip.loops._jit import jit
from gpuzip.loops._vectors256 import (
    FLOATS,
    I64,
    PLACE,
    REAL,
    address_of,
    compiled,
    floats,
    load,
    store,
    transposed,
)

_ROWS = FLOATS.count
_VECTOR = 4 * _ROWS  # bytes
_BLOCK = 1 << 16  # values per block of a thread


def walsh(x, signs):
    """Transform rows (N, D) float32 by signs (R, D) bool: a copy of (N, D)."""
    return torch.from_numpy(of_few(signs)(x.numpy()))


def of_few(signs):
    """Return a function that transforms arrays (N, D) float32 by signs (R, D) bool, as `walsh` does."""
    (R, D), flips = signs.shape, np.where(signs.numpy(), -1, 1)
    scales = [_scale(D, i) for i in range(R)]
    return _transform(D, range(R), [flips[0], *(scales[i] * flips[i + 1] for i in range(R - 1)), scales[-1]])


def back_of(signs):
    """Return a function that does what `walsh_back` does by these signs, for arrays."""
    (R, D), flips = signs.shape, np.where(signs.numpy(), -1, 1)
    down = range(R)[::-1]
    return _transform(D, down, [np.ones(D), *(_scale(D, i) * flips[i] for i in down)])


def _first(D, i):
    """The first column of those that round i transforms."""
    return (D - (1 << (D.bit_length() - 1))) * (i % 2)


def _scale(D, i):
    scale, width = np.ones(D, np.float32), 1 << (D.bit_length() - 1)
    scale[_first(D, i) :][:width] = np.float32(1 / math.sqrt(width))
    return scale


def _transform(D, order, factors):
    """Return a function that multiplies rows by the first factors, and after each round by the next ones.

    A flip of signs commutes with a product, bit for bit, so that both are one multiplication.
    """
    starts = np.array([_first(D, i) for i in order], np.int64)
    multiply = np.array(factors, np.float32)

    def transformed(x):
        values, out = np.ascontiguousarray(x).reshape(-1), np.empty(x.shape, np.float32)
        into = out.reshape(-1)

        def some_rows(first, stop):
            some = slice(first * D, stop * D)
            _rounds(values[some], into[some], multiply, starts, scratch.take("walsh", _ROWS * D, np.float32))

        if len(x) <= _ROWS:  # no slices of all
            _rounds(values, into, multiply, starts, scratch.take("walsh", _ROWS * D, np.float32))
        else:
            map_blocks(some_rows, len(x), max(_ROWS, _BLOCK // D // _ROWS * _ROWS), with_caller=True)
        return out

    return transformed


@jit("void(float32[::1], float32[::1], float32[:, ::1], int64[::1], float32[::1])")
def _rounds(x, out, factors, starts, tile):
    D, place = factors.shape[1], address_of(tile)
    width = 1
    while 2 * width <= D:
        width *= 2
    for first in range(0, len(x), _ROWS * D):
        _read(x[first : first + _ROWS * D], D, tile)
        _multiply(place, factors[0])
        for i in range(len(starts)):
            _butterflies(place + _VECTOR * starts[i], width)
            _multiply(place, factors[i + 1])
        _write(tile, D, out[first : first + _ROWS * D])


@jit("void(float32[::1], intp, float32[::1])", inner=True)
def _read(x, D, tile):
    """Lay eight rows or fewer side by side: column d of row n becomes entry (d, n)."""
    done, source, target = 0, address_of(x), address_of(tile)
    if len(x) == _ROWS * D:
        done = D // _ROWS * _ROWS
        for d in range(0, done, _ROWS):
            _turn(source + 4 * d, 4 * D, target + _VECTOR * d, _VECTOR)
    else:
        tile[:] = np.float32(0)
    for n in range(len(x) // D):
        for d in range(done, D):
            tile[_ROWS * d + n] = x[n * D + d]


@jit("void(float32[::1], intp, float32[::1])", inner=True)
def _write(tile, D, out):
    done, source, target = 0, address_of(tile), address_of(out)
    if len(out) == _ROWS * D:
        done = D // _ROWS * _ROWS
        for d in range(0, done, _ROWS):
            _turn(source + _VECTOR * d, _VECTOR, target + 4 * d, 4 * D)
    for n in range(len(out) // D):
        for d in range(done, D):
            out[n * D + d] = tile[_ROWS * d + n]


@jit("void(intp, float32[::1])", inner=True)
def _multiply(place, factors):
    for d in range(len(factors)):
        _scale_by(place + _VECTOR * d, factors[d])


@jit("void(intp, intp)", inner=True)
def _butterflies(place, width):
    """Transform `width` vectors: steps of three stages at once, and then those that are left."""
    half = 1
    while 8 * half <= width:
        for first in range(0, width, 8 * half):
            for n in range(first, first + half):
                _three_stages(place + _VECTOR * n, _VECTOR * half)
        half *= 8
    for n in range(half):
        if 4 * half == width:
            _two_stages(place + _VECTOR * n, _VECTOR * half)
        elif 2 * half == width:
            _one_stage(place + _VECTOR * n, _VECTOR * half)


def _stages(count):
    """Return a function that transforms 2**count vectors, `stride` bytes apart: sums and differences."""

    def stages(builder, first, stride):
        places = [builder.add(first, builder.mul(stride, I64(n))) for n in range(1 << count)]
        values = [load(builder, place, FLOATS) for place in places]
        for half in (1 << stage for stage in range(count)):
            for n in range(1 << count):
                if not n & half:
                    low, high = values[n], values[n + half]
                    values[n], values[n + half] = builder.fadd(low, high), builder.fsub(low, high)
        for place, value in zip(places, values, strict=True):
            store(builder, value, place)

    return compiled(types.void, PLACE, PLACE)(stages)


_one_stage, _two_stages, _three_stages = _stages(1), _stages(2), _stages(3)


@compiled(types.void, PLACE, REAL)
def _scale_by(builder, place, factor):
    store(builder, builder.fmul(load(builder, place, FLOATS), floats(builder, factor)), place)


@compiled(types.void, *[PLACE] * 4)
def _turn(builder, source, step, target, stride):
    """Transpose eight vectors, `step` bytes apart, to places `stride` bytes apart."""
    rows = [load(builder, builder.add(source, builder.mul(step, I64(n))), FLOATS) for n in range(_ROWS)]
    for n, row in enumerate(transposed(builder, rows)):
        store(builder, row, builder.add(target, builder.mul(stride, I64(n))))
