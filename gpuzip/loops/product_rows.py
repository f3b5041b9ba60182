"""Products of few rows and a matrix, summed as a BLAS does: fused, and a run of dimensions at a time."""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import types

from gpuzip.loops._jit import has_features, jit
from gpuzip.loops._vectors256 import FLOATS, I64, PLACE, address_of, compiled, floats, load, store

_LANES = FLOATS.count
_WIDE = 8  # registers of sums


@cache
def is_here():
    """Return whether this CPU multiplies and adds with one rounding, and numba may use it."""
    return has_features("avx2", "fma")


def product(x, matrix, run):
    """x (N, D) and matrix (D, E) float32 arrays -> (N, E): sums of runs of `run` dimensions, one by one."""
    out = np.zeros((len(x), matrix.shape[1]), np.float32)
    _product(x, matrix, run, out)
    return out


def compiled_now():
    """Compile the loop, and return that it is."""
    product(*(np.zeros((0, 1), np.float32),) * 2, 1)
    return True


@jit("void(float32[:, ::1], float32[:, ::1], intp, float32[:, ::1])")
def _product(x, matrix, run, out):
    (N, D), E = x.shape, matrix.shape[1]
    step = 4 * E
    for n in range(N):
        for first in range(0, D, run):
            row, count = address_of(x) + 4 * (n * D + first), min(run, D - first)
            source, target, e = address_of(matrix) + step * first, address_of(out) + step * n, 0
            while e + _WIDE * _LANES <= E:
                _add_wide(row, source + 4 * e, step, count, target + 4 * e)
                e += _WIDE * _LANES
            while e + _LANES <= E:
                _add_eight(row, source + 4 * e, step, count, target + 4 * e)
                e += _LANES
            while e < E:
                _add_one(row, source + 4 * e, step, count, target + 4 * e)
                e += 1


def _sums(kind, vectors):
    """Return a function that adds to `vectors` vectors of sums the products of `count` values, 1 or more.

    Value n is multiplied by the vectors at source + n * step.
    """
    size = 4 * getattr(kind, "count", 1)

    def add(builder, values, source, step, count, target):
        name = f"llvm.fma.v{_LANES}f32" if kind is FLOATS else "llvm.fma.f32"
        fused = builder.module.declare_intrinsic(name, (), ir.FunctionType(kind, [kind] * 3))
        entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        n, place = builder.phi(I64), builder.phi(I64)
        sums = [builder.phi(kind) for _ in range(vectors)]
        value = load(builder, builder.add(values, builder.mul(n, I64(4))), ir.FloatType())
        factor = floats(builder, value) if kind is FLOATS else value
        new = []
        for v, total in enumerate(sums):
            entries = load(builder, builder.add(place, I64(size * v)), kind)
            new.append(builder.call(fused, [factor, entries, total]))
            total.add_incoming(ir.Constant(kind, [0.0] * _LANES if kind is FLOATS else 0.0), entry)
            total.add_incoming(new[v], loop)
        following, after = builder.add(n, I64(1)), builder.add(place, step)
        for phi, first, later in ((n, I64(0), following), (place, source, after)):
            phi.add_incoming(first, entry)
            phi.add_incoming(later, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
        builder.position_at_end(done)
        for v, total in enumerate(new):
            into = builder.add(target, I64(size * v))
            store(builder, builder.fadd(load(builder, into, kind), total), into)

    return compiled(types.void, *[PLACE] * 5)(add)


_add_wide, _add_eight, _add_one = _sums(FLOATS, _WIDE), _sums(FLOATS, 1), _sums(ir.FloatType(), 1)
