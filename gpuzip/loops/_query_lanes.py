"""Inner products of rows of bytes with many queries by AVX-512, whose lanes are the queries.

An instruction (VNNI) multiplies four bytes without a sign by four with one, and adds the products to a sum of
32 bits. The four of a row are spread over a register, and meet the same four columns of 16 queries, so
that no register is summed up in the end. Arguments are addresses. Nothing is checked.
"""

from itertools import chain

import numpy as np
from llvmlite import ir
from numba import types

from gpuzip.loops._jit import has_features, jit
from gpuzip.loops._vectors256 import I32, I64, PLACE, REAL, all_of, compiled, fetch_line, load, store

LANES = 16  # queries of a group
STEP = 4  # columns per step; rows are read, and packed queries are padded with zeros, to a multiple of it
_HALVINGS = 9  # after which a limit passes hardly more rows than the best it could be
_AHEAD = 1 << 12  # bytes from rows to what is fetched meanwhile, in the order of addresses
ROWS = 8  # of `products_of_rows`
_SUMS, _FLOATS = (ir.VectorType(kind, LANES) for kind in (I32, ir.FloatType()))


def is_here():
    """Return whether this CPU has the instructions and numba may use them."""
    return has_features("avx512f", "avx512bw", "avx512vnni")


def packed(queries):
    """Return queries (Q, D) int8 as words (groups, E // STEP, LANES), each of STEP columns of a query.

    Queries and columns that fill up a group or a step are 0.
    """
    Q, D = queries.shape
    whole = np.zeros((Q + -Q % LANES, D + -D % STEP), np.int8)
    whole[:Q, :D] = queries
    words = np.empty(whole.size // STEP, np.int32)
    pack(whole.view(np.int32), words)
    return words


@jit("void(int32[:, ::1], int32[::1])")
def pack(queries, words):
    """Write words of queries as `packed` returns them. There are as many queries as lanes of all groups."""
    Q, W = queries.shape
    for first in range(0, Q, LANES):
        for w in range(W):
            for lane in range(LANES):
                words[first * W + w * LANES + lane] = queries[first + lane, w]


def _products(rows, groups):
    """Return a function of loops that writes the sums of `rows` rows and `groups` groups of queries."""

    def products(builder, sums, stride, codes, apart, asked, E, flip):
        places = [builder.add(codes, builder.mul(apart, I64(r))) for r in range(rows)]
        of_groups = [builder.add(asked, builder.mul(E, I64(LANES * g))) for g in range(groups)]
        found = _accumulated(builder, places, of_groups, E, all_of(builder, _SUMS, flip))
        for r, of_row in enumerate(found):
            into = builder.add(sums, builder.mul(stride, I64(r)))
            for g, total in enumerate(of_row):
                store(builder, total, builder.add(into, I64(4 * LANES * g)))

    return compiled(types.void, *[PLACE] * 6, types.int32)(products)


def _accumulated(builder, places, of_groups, E, flip):
    kind = ir.FunctionType(_SUMS, [_SUMS] * 3)
    multiplied = builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), kind)
    entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    d, totals = builder.phi(I64), [[builder.phi(_SUMS) for _ in of_groups] for _ in places]
    column = builder.mul(d, I64(LANES))
    queries = [load(builder, builder.add(group, column), _SUMS) for group in of_groups]
    if len(places) > 1:
        ahead = builder.add(places[0], I64(_AHEAD))
        fetch_line(builder, builder.add(ahead, builder.mul(d, I64(len(places)))))
    new, after = [], builder.add(d, I64(STEP))
    for place, sums in zip(places, totals, strict=True):
        codes = builder.xor(all_of(builder, _SUMS, load(builder, builder.add(place, d), I32)), flip)
        pairs = zip(sums, queries, strict=True)
        new.append([builder.call(multiplied, [old, codes, query]) for old, query in pairs])
    d.add_incoming(I64(0), entry)
    d.add_incoming(after, loop)
    for old, value in zip(chain(*totals), chain(*new), strict=True):
        old.add_incoming(ir.Constant(_SUMS, [0] * LANES), entry)
        old.add_incoming(value, loop)
    builder.cbranch(builder.icmp_unsigned("<", after, E), loop, done)
    builder.position_at_end(done)
    return new


#: They write int32 at sums, `stride` bytes from row to row, for ROWS rows that are `apart` bytes apart, or
#: for one; and for two groups of queries, of which the second follows the first, or for one. Codes are
#: xor-ed with `flip`, a byte four times, before. E bytes of a row are read; E is a multiple of STEP, not 0.
products_of_rows, products_of_row = _products(ROWS, 2), _products(1, 2)
products_of_rows_and_group, products_of_row_and_group = _products(ROWS, 1), _products(1, 1)


@compiled(types.void, *[PLACE] * 3, REAL, REAL)
def score(builder, sums, unit, offset, scale, bias):
    """Replace the sums of a row by scores: (unit * sum + offset) * scale + bias, rounded after each step."""
    found = builder.sitofp(load(builder, sums, _SUMS), _FLOATS)
    found = builder.fadd(builder.fmul(found, load(builder, unit, _FLOATS)), load(builder, offset, _FLOATS))
    factor, term = (all_of(builder, _FLOATS, value) for value in (scale, bias))
    store(builder, builder.fadd(builder.fmul(found, factor), term), sums)


@compiled(types.uint64, *[PLACE] * 3)
def better(builder, halves, scores, limits):
    """Write the upper halves of the keys of a row's scores; return a bit for each that is above its limit."""
    found = load(builder, scores, _FLOATS)
    bits = builder.bitcast(builder.fadd(found, _constant(0.0)), _SUMS)  # -0.0 is 0.0
    is_negative = builder.icmp_signed("<", bits, ir.Constant(_SUMS, [0] * LANES))
    turned = builder.xor(bits, ir.Constant(_SUMS, [0x7FFFFFFF] * LANES))
    store(builder, builder.select(is_negative, bits, turned), halves)
    above = builder.fcmp_ordered(">", found, load(builder, limits, _FLOATS))
    return builder.zext(builder.bitcast(above, ir.IntType(LANES)), I64)


@compiled(types.void, *[PLACE] * 4, types.int32)
def raise_limits(builder, limits, scores, stride, rows, k):
    """Raise the limits of a group to scores that at least k of so many rows are above, and few more.

    They are found by halves of the range of each lane's scores. scores: `stride` bytes from row to row.
    """
    enough = all_of(builder, _SUMS, k)
    least, most = _folded(builder, scores, stride, rows, [np.inf, -np.inf], _range)
    found = _constant(-np.inf)
    for _ in range(_HALVINGS):
        half = ir.Constant(_FLOATS, [0.5] * LANES)
        middle = builder.fadd(builder.fmul(least, half), builder.fmul(most, half))

        def counted(builder, score, counts, middle=middle):
            is_above = builder.fcmp_ordered(">", score, middle)
            return [builder.sub(counts[0], builder.sext(is_above, _SUMS))]

        (count,) = _folded(builder, scores, stride, rows, [0], counted)
        is_enough = builder.icmp_signed(">=", count, enough)
        least, found = (builder.select(is_enough, middle, old) for old in (least, found))
        most = builder.select(is_enough, most, middle)
    old = load(builder, limits, _FLOATS)
    store(builder, builder.select(builder.fcmp_ordered(">", found, old), found, old), limits)


def _range(builder, score, ends):
    """Return the least and the greatest score so far, without those that are -inf or no number."""
    least, most = ends
    is_less = builder.and_(
        builder.fcmp_ordered("<", score, least), builder.fcmp_ordered(">", score, _constant(-np.inf))
    )
    return [
        builder.select(is_less, score, least),
        builder.select(builder.fcmp_ordered(">", score, most), score, most),
    ]


def _folded(builder, scores, stride, rows, first, step):
    """Return registers that start as these numbers, after a step with the scores of each row."""
    entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
    starts = [ir.Constant(_SUMS, [x] * LANES) if isinstance(x, int) else _constant(x) for x in first]
    builder.branch(loop)
    builder.position_at_end(loop)
    row, values = builder.phi(I64), [builder.phi(start.type) for start in starts]
    score = load(builder, builder.add(scores, builder.mul(row, stride)), _FLOATS)
    new, after = step(builder, score, values), builder.add(row, I64(1))
    for phi, start, value in zip([row, *values], [I64(0), *starts], [after, *new], strict=True):
        phi.add_incoming(start, entry)
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", after, rows), loop, done)
    builder.position_at_end(done)
    return new


def _constant(number):
    return ir.Constant(_FLOATS, [number] * LANES)
