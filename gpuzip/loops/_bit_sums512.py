"""How many bits differ, as `_bit_sums` has it: AVX-512 BITALG counts those of 64 bytes by one instruction."""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpuzip.loops._bit_sums import written_below
from gpuzip.loops._jit import has_features
from gpuzip.loops._vectors256 import (
    BYTES,
    I8,
    I16,
    I64,
    PLACE,
    ROWS,
    all_of,
    compiled,
    fetch_line,
    halves_added,
    load,
    shuffled,
    store,
)

_CHUNK = 62  # bytes of a row; every other one is counted in the same byte, which holds 248 bits
_STEP = 2  # bytes of 32 rows per register
_BOTH, _HALVES = ir.VectorType(I8, _STEP * ROWS), ir.VectorType(I16, ROWS)


def is_here():
    """Return whether this CPU has the instructions and numba may use them."""
    return has_features("avx512f", "avx512bw", "avx512bitalg")


@compiled(types.void, PLACE, PLACE, PLACE)
def tables_of_bits(builder, tables, query, B):
    """Write each byte of a query 32 times."""
    with cgutils.for_range(builder, B) as loop:
        byte = load(builder, builder.add(query, loop.index), I8)
        place = builder.add(tables, builder.mul(loop.index, I64(ROWS)))
        store(builder, all_of(builder, BYTES, byte), place)


@compiled(types.uint64, *[PLACE] * 6, types.uint16)
def bits_below(builder, sums, columns, apart, tables, B, ahead, bound):
    """Do what `_bit_sums.bits_below` does, by the tables that are written here."""
    total = [
        [cgutils.alloca_once_value(builder, ir.Constant(_HALVES, [0] * ROWS)) for _ in "eo"] for _ in "12"
    ]
    few = [cgutils.alloca_once(builder, _BOTH) for _ in total]

    def add(at, kind):
        """Count the bits of bytes from this place of each 32 rows."""
        asked = load(builder, builder.add(tables, at), kind)
        for half, place in enumerate(few):
            column = builder.add(builder.add(columns, at), builder.mul(apart, I64(half)))
            found = _counts(builder, builder.xor(load(builder, column, kind), asked))
            if kind == BYTES:
                found = shuffled(builder, found, ir.Constant(BYTES, [0] * ROWS), range(2 * ROWS))
            builder.store(builder.add(builder.load(place), found), place)

    whole = builder.and_(B, I64(-_STEP))
    with cgutils.for_range_slice(builder, I64(0), B, I64(_CHUNK), inc=True) as (start, _):
        for place in few:
            builder.store(ir.Constant(_BOTH, [0] * _BOTH.count), place)
        last = builder.add(start, I64(_CHUNK))
        is_last = builder.icmp_unsigned(">=", last, B)
        stop = builder.select(is_last, whole, last)
        with cgutils.for_range_slice(builder, start, stop, I64(_STEP), inc=True) as (j, _):
            at = builder.mul(j, I64(ROWS))
            line = builder.add(builder.add(columns, ahead), builder.mul(at, I64(2)))
            for more in (0, 2 * ROWS):
                fetch_line(builder, builder.add(line, I64(more)))
            add(at, _BOTH)
        with builder.if_then(builder.and_(is_last, builder.icmp_unsigned("!=", whole, B))):
            add(builder.mul(whole, I64(ROWS)), BYTES)
        for place, (every, odd) in zip(few, total, strict=True):
            found = builder.bitcast(builder.load(place), _HALVES)
            builder.store(builder.add(builder.load(every), found), every)
            found = builder.lshr(found, ir.Constant(_HALVES, [8] * ROWS))
            builder.store(builder.add(builder.load(odd), found), odd)
    found = [[halves_added(builder, builder.load(part)) for part in parts] for parts in total]
    return written_below(builder, found, sums, bound)


def _counts(builder, bytes_):
    """Return how many bits each byte of a register has."""
    kind = bytes_.type
    name = f"llvm.ctpop.v{kind.count}i8"
    return builder.call(builder.module.declare_intrinsic(name, (), ir.FunctionType(kind, [kind])), [bytes_])
