"""Rounded tables of 16 entries per nibble in registers of 512 bits, which hold two bytes of 32 rows.

Names, arguments and results are those of `_nibbles`, but its tables are spread: of two bytes those of the low
nibbles, each twice, and then those of the high ones. Arguments are addresses. Nothing is checked.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpuzip.loops._jit import has_features
from gpuzip.loops._nibbles import TOGETHER, rounded_entries, write_sums
from gpuzip.loops._vectors256 import (
    I8,
    I16,
    I64,
    PLACE,
    REAL,
    ROWS,
    compiled,
    fetch_line,
    halves_added,
    load,
    spread,
    store,
)

HALVES_OF_FOUR, TABLE = 2, 64
_STEP = 2  # bytes per register
_BYTES, _HALVES = ir.VectorType(I8, _STEP * ROWS), ir.VectorType(I16, ROWS)
_LINE = _STEP * ROWS  # bytes of a register
#: Of a byte, by the instruction that multiplies bits by a matrix: bits 4 to 7, as bits 0 to 3.
_HIGH = [0, 0, 0, 0, 1 << 7, 1 << 6, 1 << 5, 1 << 4]


def is_here():
    """Return whether this CPU has the instructions and numba may use them."""
    return has_features("avx512f", "avx512bw", "gfni")


@compiled(types.void, PLACE, PLACE, PLACE, REAL, REAL)
def round_entries(builder, rounded, m, table, least, scale):
    """Write the 16 entries of nibble m as bytes to the tables at `rounded`, twice."""
    byte, both = builder.lshr(m, I64(1)), spread(builder, rounded_entries(builder, table, least, scale))
    one = I64(1)
    place = builder.add(rounded, builder.mul(builder.lshr(byte, one), I64(_STEP * TABLE)))
    place = builder.add(place, builder.mul(builder.and_(m, one), I64(_LINE)))
    store(builder, both, builder.add(place, builder.mul(builder.and_(byte, one), I64(ROWS))))


def _sums_of(queries, halves):
    """Return a function that sums rounded tables of so many queries for so many times 32 rows."""

    def sums(builder, sums, columns, apart, tables, apart_tables, B, ahead, floors, near):
        """Do what `_nibbles.sums_of_four` does."""
        zeros = ir.Constant(_HALVES, [0] * ROWS)
        totals = [
            [cgutils.alloca_once_value(builder, zeros) for _ in range(2)] for _ in range(queries * halves)
        ]
        with cgutils.for_range(builder, builder.lshr(B, I64(1))) as loop:
            at = builder.mul(loop.index, I64(_LINE))
            line = builder.add(builder.add(columns, ahead), builder.mul(at, I64(halves)))
            nibbles = []
            for half in range(halves):
                fetch_line(builder, builder.add(line, I64(_LINE * half)))
                column = builder.add(builder.add(columns, at), builder.mul(apart, I64(half)))
                nibbles.append(_nibbles(builder, load(builder, column, _BYTES)))
            table = builder.add(tables, builder.mul(at, I64(_STEP)))
            for q in range(queries):
                here = builder.add(table, builder.mul(apart_tables, I64(q)))
                parts = [load(builder, builder.add(here, I64(_LINE * n)), _BYTES) for n in range(2)]
                for half, rows in enumerate(nibbles):
                    _add(builder, totals[q * halves + half], parts, rows)
        found = [[halves_added(builder, builder.load(part)) for part in total] for total in totals]
        return write_sums(builder, found, sums, halves, floors, near)

    return compiled(types.uint32, *[PLACE] * 9)(sums)


def _nibbles(builder, codes):
    """Return the low and the high nibbles of a register."""
    kind = ir.FunctionType(_BYTES, [_BYTES, _BYTES, I8])
    multiply = builder.module.declare_intrinsic("llvm.x86.vgf2p8affineqb.512", (), kind)
    high = builder.call(multiply, [codes, ir.Constant(_BYTES, _HIGH * 8), I8(0)])
    return builder.and_(codes, ir.Constant(_BYTES, [15] * _BYTES.count)), high


def _add(builder, total, parts, nibbles):
    """Add the entries of both nibbles to the sums of even rows plus 256 times the next, and of odd rows."""
    kind = ir.FunctionType(_BYTES, [_BYTES, _BYTES])
    look_up = builder.module.declare_intrinsic("llvm.x86.avx512.pshuf.b.512", (), kind)
    low, high = (builder.call(look_up, [*pair]) for pair in zip(parts, nibbles, strict=True))
    entries, (every, odd) = builder.bitcast(builder.add(low, high), _HALVES), total
    builder.store(builder.add(builder.load(every), entries), every)
    of_odd = builder.lshr(entries, ir.Constant(_HALVES, [8] * ROWS))
    builder.store(builder.add(builder.load(odd), of_odd), odd)


sums_of_one, sums_of_four = _sums_of(1, 2), _sums_of(TOGETHER, HALVES_OF_FOUR)
