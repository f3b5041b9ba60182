"""Sums of look-up tables of 256 entries by registers of 512 bits, for 64 rows at a time.

AVX-512 VBMI looks up 64 codes in 128 entries by one instruction. Arguments are addresses. Nothing is checked.
"""

from llvmlite import ir
from numba import types

from gpuzip.loops._jit import has_features
from gpuzip.loops._registers import accumulated
from gpuzip.loops._vectors256 import BYTES, I8, I16, I64, PLACE, ROWS, compiled, fetch_line, load, shuffled

_BYTES, _HALVES = ir.VectorType(I8, 2 * ROWS), ir.VectorType(I16, ROWS)


def is_here():
    """Return whether this CPU has the instructions and numba may use them."""
    return has_features("avx512f", "avx512bw", "avx512vbmi")


@compiled(types.void, *[PLACE] * 6)
def sums_of_bytes(builder, sums, columns, apart, tables, B, ahead):
    """Write what `_registers.sums_of_bytes` does."""
    first = columns

    def step(columns, tables):
        """Two bytes: two entries."""
        place = builder.add(builder.add(first, ahead), builder.shl(builder.sub(columns, first), I64(1)))
        for n in range(2):
            fetch_line(builder, builder.add(place, I64(2 * ROWS * n)))
        found = []
        for n in range(2):
            column = builder.add(columns, I64(ROWS * n))
            halves = (load(builder, at, BYTES) for at in (column, builder.add(column, apart)))
            codes = shuffled(builder, *halves, range(2 * ROWS))
            found.append(_looked_up(builder, builder.add(tables, I64(256 * n)), codes))
        return [[builder.add(*found)]]

    accumulated(builder, sums, (columns, 2 * ROWS), (tables, 2 * 256), B, step, kind=_HALVES)


def _looked_up(builder, table, codes):
    """Return table[code] for 64 codes; their highest bit selects one of two look-ups of 128 entries."""
    kind = ir.FunctionType(_BYTES, [_BYTES] * 3)
    lookup = builder.module.declare_intrinsic("llvm.x86.avx512.vpermi2var.qi.512", (), kind)
    quarters = [load(builder, builder.add(table, I64(64 * n)), _BYTES) for n in range(4)]
    low, high = (builder.call(lookup, [quarters[n], codes, quarters[n + 1]]) for n in (0, 2))
    return builder.select(builder.icmp_signed("<", codes, ir.Constant(_BYTES, [0] * 64)), high, low)
