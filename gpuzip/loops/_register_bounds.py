"""Bounds of scores in registers, from sums of rounded tables of 32 rows.

Arguments are addresses. Nothing is checked.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpuzip.loops._vectors256 import (
    FLOATS,
    I64,
    PLACE,
    PLACES,
    REAL,
    absolute,
    bits_of,
    compiled,
    float_at,
    floats,
    further,
    furthest,
    load,
    store,
    sums_as_floats,
)


@compiled(types.uint32, PLACE, PLACE, REAL, REAL, REAL)
def plain_bounds(builder, bounds, sums, low, step, worst):
    """Write low + step * sum of 32 rows as floats at bounds; return the bits of those above `worst`."""
    low, step, worst = (floats(builder, value) for value in (low, step, worst))
    above = []
    for at in PLACES:
        value = builder.fadd(low, builder.fmul(step, sums_as_floats(builder, sums, at)))
        store(builder, value, float_at(builder, bounds, at))
        above.append(builder.fcmp_ordered(">", value, worst))
    return bits_of(builder, above)


@compiled(types.void, PLACE, PLACE, PLACE, REAL, REAL, REAL, PLACE)
def scaled_bounds(builder, bounds, sizes, sums, low, step, room, scale):
    """Write f * (low + step * sum) + |f| * room of 32 rows at bounds, f the row's float at scale.

    room has the sign of f before it is multiplied, as a sum of two products may be inf - inf.
    sizes: upper bounds of the values that this adds up, which say how far rounding may move it.
    """
    line = [floats(builder, value) for value in (low, step, room)]
    for at in PLACES:
        value, size = _scaled(builder, sums, line, scale, at)
        store(builder, value, float_at(builder, bounds, at))
        store(builder, size, float_at(builder, sizes, at))


def _scaled(builder, sums, line, scale, at):
    """Return what `scaled_bounds` writes for eight rows: bounds and sizes."""
    (low, step, room), zero = line, ir.Constant(FLOATS, [0.0] * FLOATS.count)
    factor = load(builder, float_at(builder, scale, at), FLOATS)
    size, part = absolute(builder, factor), builder.fmul(step, sums_as_floats(builder, sums, at))
    most = builder.fadd(builder.fadd(absolute(builder, low), part), room)
    signed = builder.select(builder.fcmp_ordered("<", factor, zero), builder.fneg(room), room)
    value = builder.fmul(factor, builder.fadd(builder.fadd(low, part), signed))
    return value, builder.fmul(size, most)


@compiled(types.uint32, *[PLACE] * 3, *[REAL] * 3, *[PLACE] * 2, *[REAL] * 4)
def column_bounds(builder, bounds, sizes, sums, low, step, room, scale, column, coef, shift, slack, worst):
    """Do what `scaled_bounds`, `add_column` and `shifted_bounds` do for one column, in registers."""
    line = [floats(builder, value) for value in (low, step, room)]
    coef, shift, slack, worst = (floats(builder, value) for value in (coef, shift, slack, worst))
    above = []
    for at in PLACES:
        value, size = _scaled(builder, sums, line, scale, at)
        added = builder.fmul(coef, load(builder, float_at(builder, column, at), FLOATS))
        value, size = builder.fadd(value, added), builder.fadd(size, absolute(builder, added))
        hidden = builder.fmul(slack, builder.fadd(size, absolute(builder, shift)))
        value = builder.fadd(builder.fadd(value, shift), hidden)
        store(builder, value, float_at(builder, bounds, at))
        store(builder, size, float_at(builder, sizes, at))
        above.append(builder.fcmp_ordered(">", value, worst))
    return bits_of(builder, above)


@compiled(types.void, PLACE, PLACE, PLACE, REAL)
def add_column(builder, bounds, sizes, column, factor):
    """Add factor times the floats at column to the bounds of 32 rows, and its size to their sizes."""
    factor = floats(builder, factor)
    for at in PLACES:
        added = builder.fmul(factor, load(builder, float_at(builder, column, at), FLOATS))
        for total, value in ((bounds, added), (sizes, absolute(builder, added))):
            place = float_at(builder, total, at)
            store(builder, builder.fadd(load(builder, place, FLOATS), value), place)


@compiled(types.uint32, PLACE, PLACE, REAL, REAL, REAL)
def shifted_bounds(builder, bounds, sizes, shift, slack, worst):
    """Add shift + slack * (size + |shift|) to the bounds of 32 rows; return bits of those above `worst`."""
    shift, slack, worst = (floats(builder, value) for value in (shift, slack, worst))
    above = []
    for at in PLACES:
        place = float_at(builder, bounds, at)
        size = load(builder, float_at(builder, sizes, at), FLOATS)
        hidden = builder.fmul(slack, builder.fadd(size, absolute(builder, shift)))
        value = builder.fadd(builder.fadd(load(builder, place, FLOATS), shift), hidden)
        store(builder, value, place)
        above.append(builder.fcmp_ordered(">", value, worst))
    return bits_of(builder, above)


@compiled(types.void, PLACE, PLACE, PLACE)
def ends_of_table(builder, ends, table, K):
    """Write the least and the greatest of K floats, a multiple of 8; NaN counts only as the first one."""
    start = floats(builder, load(builder, table, ir.FloatType()))
    both = [cgutils.alloca_once_value(builder, start) for _ in "<>"]
    with cgutils.for_range(builder, builder.udiv(K, I64(FLOATS.count))) as loop:
        place = builder.mul(loop.index, I64(4 * FLOATS.count))
        some = load(builder, builder.add(table, place), FLOATS)
        for order, end in zip("<>", both, strict=True):
            builder.store(further(builder, order, some, builder.load(end)), end)
    for n, (order, end) in enumerate(zip("<>", both, strict=True)):
        store(builder, furthest(builder, order, builder.load(end)), float_at(builder, ends, n))
