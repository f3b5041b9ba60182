"""Beam search stage by stage over a tile of rows, so that the tables of a stage stay in cache.

The costs of one partial path, for every next code, are K floats in the L1 cache. Rows of tables are added to
them, four at a time, in the order of the reference.
"""

import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import local
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._vector import load, store

_ROWS = 64
_LANES = 16
_lowest = local(_LANES, np.float32)


def beam_search(products, cross, beam):
    """Run the operator: (N, P, M, K), (P, M*(M-1)/2, K, K) float32 -> (N, P*M)."""
    N, P, M, K = products.shape
    labels = np.empty((N, P, M), np.uint8 if K <= 256 else np.int32)
    costs, tables = products.contiguous().numpy(), cross.contiguous().numpy()

    def some_rows(start, stop):
        n = stop - start
        own = (
            *(np.empty(shape, np.float32) for shape in ((n, beam), beam, K)),
            *(np.empty(shape, np.int32) for shape in ((n, beam, M), (beam, M))),
            np.empty(beam, np.int64),
        )
        _search(costs[start:stop], tables, beam, labels[start:stop], *own)

    map_blocks(some_rows, N, _ROWS)
    return torch.from_numpy(labels).view(N, P * M)


@jit(
    "void(float32[:, :, :, ::1], float32[:, :, :, ::1], intp, uint8[:, :, ::1], float32[:, ::1], "
    "float32[::1], float32[::1], int32[:, :, ::1], int32[:, ::1], int64[::1])",
    "void(float32[:, :, :, ::1], float32[:, :, :, ::1], intp, int32[:, :, ::1], float32[:, ::1], "
    "float32[::1], float32[::1], int32[:, :, ::1], int32[:, ::1], int64[::1])",
)
def _search(products, cross, beam, labels, cost, least, total, paths, old, at):
    """products (n, P, M, K), cross (P, pairs, K, K) -> labels (n, P, M). The rest is memory."""
    wide_vectors()
    n, P, M, K = products.shape
    lowest = _lowest()
    for p in range(P):
        width = 1
        for r in range(n):  # an assignment of a column compiles numba's messages about shapes, for seconds
            cost[r, 0] = 0
        for m in range(M):
            tables, taken = cross[p, m * (m - 1) // 2 : m * (m + 1) // 2], min(beam, width * K)
            for r in range(n):
                best, best_at = least[:taken], at[:taken]
                for i in range(taken):
                    best[i] = np.inf
                for beginning in range(width):
                    for k in range(K):
                        total[k] = products[r, p, m, k]
                    _add_tables(total, tables, paths[r, beginning])
                    _keep_least(total, cost[r, beginning], beginning * K, lowest, best, best_at)
                for i in range(width):
                    for j in range(m):
                        old[i, j] = paths[r, i, j]
                for i in range(taken):
                    parent, code = at[i] // K, at[i] % K
                    for j in range(m):
                        paths[r, i, j] = old[parent, j]
                    paths[r, i, m], cost[r, i] = code, least[i]
            width = taken
        for r in range(n):
            for m in range(M):
                labels[r, p, m] = paths[r, 0, m]


@jit("void(float32[::1], float32[:, :, ::1], int32[::1])", inner=True)
def _add_tables(total, tables, path):
    """Add tables[j, path[j], k] to total[k] for every j in order."""
    wide_vectors()
    K, m = len(total), len(tables)
    for j in range(0, m - m % 4, 4):
        a, b = tables[j, path[j]], tables[j + 1, path[j + 1]]
        c, d = tables[j + 2, path[j + 2]], tables[j + 3, path[j + 3]]
        for k in range(K):
            total[k] = total[k] + a[k] + b[k] + c[k] + d[k]
    for j in range(m - m % 4, m):
        row = tables[j, path[j]]
        for k in range(K):
            total[k] += row[k]


@jit("void(float32[::1], float32, intp, float32[::1], float32[::1], int64[::1])", inner=True)
def _keep_least(total, cost, number, lowest, least, at):
    """Insert total[k] + cost, numbered number + k, into the sorted minima; the lower number wins a tie.

    lowest (lanes,) is scratch for the minimum of each lane, where a lane holds the k that are equal modulo
    the number of lanes. They bound what can be kept, so that few values are inserted.
    """
    wide_vectors()
    K, taken = len(total), len(least)
    if K < _LANES:
        for k in range(K):
            _insert(total[k] + cost, number + k, least, at)
        return
    _add_and_find_minima(total, K, cost, lowest)
    bound = min(least[taken - 1], _bound(lowest, taken))
    for first in range(0, K, _LANES):
        bits = _at_most(total, first, bound)
        while bits:
            k = first + _lowest_bit(bits)
            bits &= bits - 1
            _insert(total[k], number + k, least, at)
            bound = min(bound, least[taken - 1])


@jit("float32(float32[::1], intp)", inner=True)
def _bound(lowest, taken):
    """Return a value that `taken` values do not exceed, from the minima of lanes: inf if there are fewer.

    The lanes are dealt to `taken` groups. The minimum of each group is one of the values.
    """
    size = _LANES // taken
    if size == 0:
        return np.float32(np.inf)
    bound = np.float32(-np.inf)
    for first in range(0, size * taken, size):
        least = lowest[first]
        for w in range(first + 1, first + size):
            least = min(least, lowest[w])
        bound = max(bound, least)
    return bound


@intrinsic
def _add_and_find_minima(typing, values, count, summand, lowest):
    """Add summand to the first `count` values, a multiple of the lanes; write the minimum of each lane."""
    vector, word = ir.VectorType(ir.FloatType(), _LANES), ir.IntType(64)

    def generate(context, builder, signature, arguments):
        data, minima = (
            context.make_array(signature.args[at])(context, builder, arguments[at]).data for at in (0, 3)
        )
        added = _same(builder, arguments[2], vector)
        least = cgutils.alloca_once_value(builder, vector([float("inf")] * _LANES))
        with cgutils.for_range_slice(builder, word(0), arguments[1], word(_LANES), word) as (at, _):
            new = builder.fadd(load(builder, data, at, vector), added)
            store(builder, new, data, at)
            old = builder.load(least)
            builder.store(builder.select(builder.fcmp_ordered("<", new, old), new, old), least)
        store(builder, builder.load(least), minima, word(0))
        return context.get_dummy_value()

    return types.void(values, types.intp, types.float32, lowest), generate


def _same(builder, value, vector):
    """Return a vector of equal values."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.IntType(32)(0))
    lanes = ir.VectorType(ir.IntType(32), vector.count)
    return builder.shuffle_vector(one, one, lanes([0] * vector.count))


@intrinsic
def _at_most(typing, values, first, bound):
    """Return a bit per lane, set where values[first + lane] <= bound."""
    vector = ir.VectorType(ir.FloatType(), _LANES)

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        limit = _same(builder, arguments[2], vector)
        bits = builder.fcmp_ordered("<=", load(builder, data, arguments[1], vector), limit)
        return builder.zext(builder.bitcast(bits, ir.IntType(_LANES)), ir.IntType(64))

    return types.int64(values, types.uintp, types.float32), generate


@intrinsic
def _lowest_bit(typing, bits):
    """Return the place of the lowest bit that is set."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.int64), generate


@jit(inline="always")
def _insert(value, number, least, at):
    i = len(least)
    while i > 0 and (value < least[i - 1] or (value == least[i - 1] and number < at[i - 1])):
        if i < len(least):
            least[i], at[i] = least[i - 1], at[i - 1]
        i -= 1
    if i < len(least):
        least[i], at[i] = value, number
