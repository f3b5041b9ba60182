"""Tables of 16 entries per nibble in registers: made, rounded, and looked up for several queries or exactly.

Arguments are addresses. Nothing is checked. Columns are those that `_registers.turn` writes for 32 rows.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpuzip.loops._blocks import LINE
from gpuzip.loops._vectors256 import (
    BYTES,
    FLOATS,
    HALVES,
    I8,
    I16,
    I32,
    I64,
    LANE,
    PLACE,
    PLACES,
    REAL,
    ROWS,
    bits_of,
    compiled,
    fetch_line,
    float_at,
    floats,
    further,
    furthest,
    in_order,
    load,
    looked_up,
    shuffled,
    spread,
    store,
    sums_as_floats,
)

TOGETHER = 4  # queries that `sums_of_four` serves: they share the loads of columns and their nibbles
HALVES_OF_FOUR = 1  # times 32 rows that it serves
TABLE = 32  # bytes of the rounded tables of a byte

_EIGHT = FLOATS.count
WORDS = ir.VectorType(I32, _EIGHT)
_WHOLE = ir.VectorType(ir.FloatType(), 16)


def _table_of(add):
    """Return a function that makes one table of 16 entries, and its ends.

    add(builder, value, column, total): what an entry becomes by one dimension.
    """

    def table(builder, table, ends, query, column, apart, S):
        """Write 16 entries at table, and the least and the greatest of them at ends.

        query: S floats. column: 16 floats of a dimension, those of the next one `apart` bytes further.
        """
        totals = [cgutils.alloca_once_value(builder, ir.Constant(FLOATS, [0.0] * _EIGHT)) for _ in range(2)]
        with cgutils.for_range(builder, S) as loop:
            place = builder.add(query, builder.mul(loop.index, I64(4)))
            value = floats(builder, load(builder, place, ir.FloatType()))
            first = builder.add(column, builder.mul(loop.index, apart))
            for half, total in enumerate(totals):
                entries = load(builder, float_at(builder, first, _EIGHT * half), FLOATS)
                builder.store(add(builder, value, entries, builder.load(total)), total)
        halves = [builder.load(total) for total in totals]
        for half, entries in enumerate(halves):
            store(builder, entries, float_at(builder, table, _EIGHT * half))
        for n, order in enumerate(("<", ">")):
            end = furthest(builder, order, further(builder, order, *halves))
            store(builder, end, float_at(builder, ends, n))

    return table


def _plus_product(builder, value, entries, total):
    return builder.fadd(total, builder.fmul(value, entries))


def _minus_square(builder, value, entries, total):
    difference = builder.fsub(value, entries)
    return builder.fsub(total, builder.fmul(difference, difference))


table_of_products = compiled(types.void, *[PLACE] * 6)(_table_of(_plus_product))
table_of_distances = compiled(types.void, *[PLACE] * 6)(_table_of(_minus_square))


@compiled(types.void, PLACE, PLACE, PLACE, REAL, REAL)
def round_entries(builder, rounded, m, table, least, scale):
    """Write the 16 entries of nibble m as bytes to the tables at `rounded`: see `rounded_entries`."""
    place = builder.add(rounded, builder.mul(m, I64(16)))
    store(builder, rounded_entries(builder, table, least, scale), place)


def rounded_entries(builder, table, least, scale):
    """Return 16 entries as bytes: (entry - least) * scale + 0.5, without what is behind the point."""
    kind = ir.VectorType(I32, 16)
    entries = load(builder, table, _WHOLE)
    least, scale = (shuffled(builder, *[floats(builder, value)] * 2, [0] * 16) for value in (least, scale))
    scaled = builder.fmul(builder.fsub(entries, least), scale)
    whole = builder.fptosi(builder.fadd(scaled, ir.Constant(_WHOLE, [0.5] * 16)), kind)
    return builder.trunc(whole, LANE)


def _sums_of(queries, halves):
    """Return a function that sums rounded tables of so many queries for so many times 32 rows."""

    def sums(builder, sums, columns, apart, tables, apart_tables, B, ahead, floors, near):
        """Write, as uint16 at sums, the sum over j < B of the entries of both nibbles of byte j.

        Those of 32 rows follow each other, then come the next 32 rows, whose columns are `apart` bytes
        further, or the next query, whose tables are `apart_tables` bytes further. tables: see
        `_registers.sums_of_nibbles`, and there `ahead`.
        Write also, as uint32 at near, bits of each 32 rows whose sums are not below the query's uint16 at
        floors; return all of these bits, or-ed.
        """
        zeros = ir.Constant(HALVES, [0] * 16)
        totals = [
            [cgutils.alloca_once_value(builder, zeros) for _ in range(2)] for _ in range(queries * halves)
        ]
        with cgutils.for_range(builder, builder.lshr(B, I64(1))) as loop:
            column = builder.add(columns, builder.mul(loop.index, I64(2 * ROWS)))
            table = builder.add(tables, builder.mul(loop.index, I64(4 * 16)))
            starts = [builder.add(column, builder.mul(apart, I64(half))) for half in range(halves)]
            line = builder.add(builder.add(columns, ahead), builder.mul(loop.index, I64(2 * ROWS * halves)))
            for n in range(halves):
                fetch_line(builder, builder.add(line, I64(LINE * n)))
            nibbles = [_nibbles(builder, start) for start in starts]
            for q in range(queries):
                here = builder.add(table, builder.mul(apart_tables, I64(q)))
                parts = [
                    spread(builder, load(builder, builder.add(here, I64(16 * n)), LANE)) for n in range(4)
                ]
                for half, rows in enumerate(nibbles):
                    found = [looked_up(builder, *pair) for pair in zip(parts, rows, strict=True)]
                    _add(builder, totals[q * halves + half], found)
        found = [[builder.load(part) for part in total] for total in totals]
        return write_sums(builder, found, sums, halves, floors, near)

    return compiled(types.uint32, *[PLACE] * 9)(sums)


def _nibbles(builder, column):
    """Return four registers: the low and the high nibbles of two bytes of 32 rows."""
    low, found = ir.Constant(BYTES, [15] * ROWS), []
    for n in range(2):
        codes = load(builder, builder.add(column, I64(ROWS * n)), BYTES)
        shifted = builder.lshr(builder.bitcast(codes, HALVES), ir.Constant(HALVES, [4] * 16))
        found += [builder.and_(part, low) for part in (codes, builder.bitcast(shifted, BYTES))]
    return found


def _add(builder, total, found):
    """Add pairs of entries to the sums of every row plus 256 times that of the next, and of odd rows."""
    every, odd = total
    for pair in (found[:2], found[2:]):
        entries = builder.bitcast(builder.add(*pair), HALVES)
        builder.store(builder.add(builder.load(every), entries), every)
        of_odd = builder.lshr(entries, ir.Constant(HALVES, [8] * 16))
        builder.store(builder.add(builder.load(odd), of_odd), odd)


def write_sums(builder, totals, sums, halves, floors, near):
    """Write sums and near ones as `sums_of_four` does; return the bits of these, or-ed.

    totals: what `in_order` takes, of each query so many times 32 rows.
    """
    any_row = I32(0)
    for n, total in enumerate(totals):
        floor = load(builder, builder.add(floors, I64(2 * (n // halves))), I16)
        one = builder.insert_element(ir.Constant(HALVES, ir.Undefined), floor, I32(0))
        least, found = shuffled(builder, one, one, [0] * HALVES.count), []
        for half, rows in enumerate(in_order(builder, *total)):
            store(builder, rows, builder.add(sums, I64(2 * ROWS * n + ROWS * half)))
            found.append(builder.icmp_unsigned(">=", rows, least))
        bits = builder.bitcast(shuffled(builder, *found, range(ROWS)), I32)
        store(builder, bits, builder.add(near, I64(4 * n)))
        any_row = builder.or_(any_row, bits)
    return any_row


sums_of_one, sums_of_four = _sums_of(1, 2), _sums_of(TOGETHER, HALVES_OF_FOUR)


@compiled(types.uint32, PLACE, PLACE, REAL, REAL, REAL, PLACE)
def factored_bounds(builder, bounds, sums, low, step, worst, scale):
    """Write what `_register_bounds.plain_bounds` does, times the row's float at scale; return the same."""
    low, step, worst = (floats(builder, value) for value in (low, step, worst))
    above = []
    for at in PLACES:
        value = builder.fadd(low, builder.fmul(step, sums_as_floats(builder, sums, at)))
        value = builder.fmul(value, load(builder, float_at(builder, scale, at), FLOATS))
        store(builder, value, float_at(builder, bounds, at))
        above.append(builder.fcmp_ordered(">", value, worst))
    return bits_of(builder, above)


@compiled(types.void, *[PLACE] * 4)
def exact_sums(builder, sums, columns, tables, B):
    """Write, as float32, the sum over j < B of the two entries of byte j, added first, for 32 rows.

    tables: 16 floats for the low nibble of byte j at tables + 128*j, then 16 for the high one.
    """
    kind = ir.FunctionType(FLOATS, [FLOATS, WORDS])
    permute = builder.module.declare_intrinsic("llvm.x86.avx2.permps", (), kind)
    zeros, none = ir.Constant(FLOATS, [0.0] * _EIGHT), ir.Constant(WORDS, [0] * _EIGHT)
    totals = [cgutils.alloca_once_value(builder, zeros) for _ in PLACES]

    def entry(codes, shift, table):
        """Three bits choose within eight entries; the fourth, moved to the sign, chooses the eight."""
        found = [builder.call(permute, [half, builder.lshr(codes, _eight(shift))]) for half in table]
        highest = builder.shl(codes, _eight(28 - shift))
        return builder.select(builder.icmp_signed("<", highest, none), found[1], found[0])

    with cgutils.for_range(builder, B) as loop:
        table = builder.add(tables, builder.mul(loop.index, I64(128)))
        parts = [load(builder, float_at(builder, table, _EIGHT * n), FLOATS) for n in range(4)]
        column = builder.add(columns, builder.mul(loop.index, I64(ROWS)))
        for at, total in zip(PLACES, totals, strict=True):
            place = builder.add(column, I64(at))
            codes = builder.zext(load(builder, place, ir.VectorType(I8, _EIGHT)), WORDS)
            both = builder.fadd(entry(codes, 0, parts[:2]), entry(codes, 4, parts[2:]))
            builder.store(builder.fadd(builder.load(total), both), total)
    for at, total in zip(PLACES, totals, strict=True):
        store(builder, builder.load(total), float_at(builder, sums, at))


def _eight(number):
    return ir.Constant(WORDS, [number] * _EIGHT)
