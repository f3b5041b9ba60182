"""How many bits differ, by look-ups of nibbles in registers: tables of a query, sums of 64 rows at a time.

An entry is at most 4, so sums over many bytes of a row fit in one byte, where those of `sums_of_nibbles` need
16 bits at once. Arguments are addresses. Nothing is checked. Columns are those that `_registers.turn` writes.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpuzip.loops._vectors256 import (
    BYTES,
    HALVES,
    I8,
    I32,
    I64,
    LANE,
    LANES,
    PLACE,
    ROWS,
    compiled,
    fetch_line,
    in_order,
    load,
    looked_up,
    shuffled,
    spread,
    store,
)

_CHUNK = 30  # bytes of a row, in which at most 240 bits differ
_STEP = 2  # bytes of a row at a time
_BITS = [n.bit_count() for n in range(16)]


@compiled(types.void, PLACE, PLACE, PLACE)
def tables_of_bits(builder, tables, query, B):
    """Write in how many bits nibbles differ from a query's: of each byte 32 entries, the low nibble first."""
    numbers, bits = (ir.Constant(BYTES, row * LANES) for row in (list(range(16)), _BITS))
    with cgutils.for_range(builder, B) as loop:
        byte = load(builder, builder.add(query, loop.index), I8)
        nibbles = builder.and_(byte, I8(15)), builder.lshr(byte, I8(4))
        own = [builder.insert_element(ir.Constant(LANE, ir.Undefined), nibble, I32(0)) for nibble in nibbles]
        own = shuffled(builder, *own, [0] * 16 + [16] * 16)
        entries = looked_up(builder, bits, builder.xor(numbers, own))
        store(builder, entries, builder.add(tables, builder.mul(loop.index, I64(ROWS))))


@compiled(types.uint64, *[PLACE] * 6, types.uint16)
def bits_below(builder, sums, columns, apart, tables, B, ahead, bound):
    """Write in how many bits 64 rows differ, as uint16 at sums; return the bits of rows below `bound`.

    Arguments are those of `sums_of_nibbles`, but B may be odd: a byte more is read, whose table is zero.
    tables: those of `tables_of_bits`.
    """
    B = builder.add(B, builder.and_(B, I64(1)))
    total = [[cgutils.alloca_once_value(builder, ir.Constant(HALVES, [0] * 16)) for _ in "eo"] for _ in "12"]
    few = [cgutils.alloca_once(builder, BYTES) for _ in total]
    with cgutils.for_range_slice(builder, I64(0), B, I64(_CHUNK), inc=True) as (start, _):
        for place in few:
            builder.store(ir.Constant(BYTES, [0] * ROWS), place)
        left = builder.sub(B, start)
        count = builder.select(builder.icmp_unsigned("<", left, I64(_CHUNK)), left, I64(_CHUNK))
        with cgutils.for_range(builder, builder.udiv(count, I64(_STEP))) as loop:
            at = builder.mul(builder.add(start, builder.mul(loop.index, I64(_STEP))), I64(ROWS))
            line = builder.add(builder.add(columns, ahead), builder.mul(at, I64(2)))
            for more in (0, 2 * ROWS):
                fetch_line(builder, builder.add(line, I64(more)))
            _add(builder, few, builder.add(columns, at), apart, builder.add(tables, at))
        for place, (every, odd) in zip(few, total, strict=True):
            found = builder.bitcast(builder.load(place), HALVES)
            builder.store(builder.add(builder.load(every), found), every)
            found = builder.lshr(found, ir.Constant(HALVES, [8] * 16))
            builder.store(builder.add(builder.load(odd), found), odd)
    return written_below(builder, [map(builder.load, part) for part in total], sums, bound)


def _add(builder, totals, column, apart, tables):
    """Add the entries of two bytes to the totals of each 32 rows, as bytes."""
    low = ir.Constant(BYTES, [15] * ROWS)
    parts = [spread(builder, load(builder, builder.add(tables, I64(16 * n)), LANE)) for n in range(4)]
    for half, place in enumerate(totals):
        start, found = builder.add(column, builder.mul(apart, I64(half))), builder.load(place)
        for n in range(_STEP):
            codes = load(builder, builder.add(start, I64(ROWS * n)), BYTES)
            shifted = builder.lshr(builder.bitcast(codes, HALVES), ir.Constant(HALVES, [4] * 16))
            for part, nibbles in zip(parts[2 * n :], (codes, builder.bitcast(shifted, BYTES)), strict=False):
                found = builder.add(found, looked_up(builder, part, builder.and_(nibbles, low)))
        builder.store(found, place)


def written_below(builder, totals, sums, bound):
    """Write the sums of each 32 rows, and return the bits of those below the bound.

    totals: of each 32 rows what `in_order` takes.
    """
    one = builder.insert_element(ir.Constant(HALVES, ir.Undefined), bound, I32(0))
    bounds, words = shuffled(builder, one, one, [0] * HALVES.count), []
    for total in totals:
        for rows in in_order(builder, *total):
            store(builder, rows, builder.add(sums, I64(ROWS * len(words))))
            words.append(builder.icmp_unsigned("<", rows, bounds))
    low, high = (shuffled(builder, *pair, range(ROWS)) for pair in (words[:2], words[2:]))
    return builder.bitcast(shuffled(builder, low, high, range(2 * ROWS)), I64)
