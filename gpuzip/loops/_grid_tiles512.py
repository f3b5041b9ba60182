"""Codes of 2 to 8 bits per dimension as bytes in tiles of 64 rows, and their products with queries of int8.

A tile holds four dimensions of 64 rows, then the next four, so that each product of AVX-512 VNNI adds to
the sums of 16 rows. In a packed tile, a byte holds 2 or 4 codes: those of the same place in 2 or 4 groups of
four dimensions, the first in the lowest bits. Arguments are addresses. Nothing is checked.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpuzip.loops._blocks import LINE
from gpuzip.loops._jit import has_features
from gpuzip.loops._vectors256 import (
    I8,
    I16,
    I32,
    I64,
    PLACE,
    all_of,
    compiled,
    fetch_line,
    load,
    store,
    transposed,
)

ROWS = 64  # of a tile
TOGETHER = 4  # queries of `estimates_of_four`
GROUP = 4 * ROWS  # bytes of four dimensions of a tile
_LANES = 16  # rows per register
_PARTS = range(ROWS // _LANES)
_CODES, _SUMS = ir.VectorType(I8, 64), ir.VectorType(I32, _LANES)
_FLOAT = ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, _LANES)
_HALVES = ir.VectorType(I16, 32)


def is_here():
    """Return whether this CPU has the instructions and numba may use them."""
    return has_features("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")


def codes_per_byte(bits):
    """Return how many codes of so many bits a byte of a packed tile holds."""
    return 4 if bits == 2 else 2 if bits <= 4 else 1


def bytes_of_tile(W, per_byte=1):
    """Return the bytes of a tile of rows whose planes have W bytes per bit, with so many codes per byte."""
    return GROUP * -(-2 * W // per_byte)


@compiled(types.void, *[PLACE] * 7)
def spread(builder, tile, signs, apart, others, others_apart, W, bits):
    """Write 16 rows of planes to their places in a tile, which begin at `tile`.

    signs, others: their first bytes, in the plane of the highest bits and in that of all others, W bytes per
    bit. apart, others_apart: bytes from row to row. Up to 7 bytes after each plane are read, and the tile has
    room for a multiple of 64 dimensions.
    """
    rows = [
        [builder.add(first, builder.mul(step, I64(r))) for r in range(_LANES)]
        for first, step in ((signs, apart), (others, others_apart))
    ]
    highest = builder.shl(I64(1), builder.sub(bits, I64(1)))
    with cgutils.for_range_slice(builder, I64(0), W, I64(8), inc=True) as (j, _):
        zeros = [ir.Constant(_CODES, [0] * 64)] * _LANES
        codes = _with_bits(builder, zeros, rows[0], j, all_of(builder, _CODES, builder.trunc(highest, I8)))
        entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        weight, at, known = builder.phi(I64), builder.phi(I64), [builder.phi(_CODES) for _ in codes]
        lower, after = builder.lshr(weight, I64(1)), builder.add(at, W)
        new = _with_bits(builder, known, rows[1], at, all_of(builder, _CODES, builder.trunc(lower, I8)))
        pairs = [(weight, highest, lower), (at, j, after), *zip(known, codes, new, strict=True)]
        for phi, first, value in pairs:
            phi.add_incoming(first, entry)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_unsigned(">", lower, I64(1)), loop, done)
        builder.position_at_end(done)
        into = builder.add(tile, builder.mul(j, I64(2 * GROUP)))
        words = [builder.bitcast(value, _SUMS) for value in new]
        for group, value in enumerate(transposed(builder, words)):
            store(builder, value, builder.add(into, I64(group * GROUP)))


def _with_bits(builder, codes, rows, at, weight):
    """Add weight to each code whose bit is set, of 64 bits from each row's byte `at`."""
    kind, found = ir.VectorType(ir.IntType(1), 64), []
    for value, row in zip(codes, rows, strict=True):
        is_set = builder.bitcast(load(builder, builder.add(row, at), I64), kind)
        found.append(builder.select(is_set, builder.add(value, weight), value))
    return found


def _pack(per_byte):
    """Return a function that packs tiles."""

    @compiled(types.void, *[PLACE] * 3)
    def pack(builder, packed, tile, W):
        """Write a tile as a packed one."""
        with cgutils.for_range(builder, _steps(builder, W, per_byte)) as loop:
            into = builder.add(packed, builder.mul(loop.index, I64(GROUP)))
            first = builder.add(tile, builder.mul(loop.index, I64(per_byte * GROUP)))
            for part in _PARTS:
                value = ir.Constant(_CODES, [0] * 64)
                for n in range(per_byte):
                    codes = load(builder, builder.add(first, I64(64 * part + n * GROUP)), _CODES)
                    shift = ir.Constant(_CODES, [8 // per_byte * n] * 64)
                    value = builder.or_(value, builder.shl(codes, shift))
                store(builder, value, builder.add(into, I64(64 * part)))

    return pack


def _steps(builder, W, per_byte):
    """Return how many steps of `_sums`, of at least two groups of four dimensions, a tile has."""
    return W if per_byte < 4 else builder.lshr(builder.add(W, I64(1)), I64(1))


def _estimates(per_byte, count):
    """Return the estimates of 64 rows of a tile of so many codes per byte, for so many queries."""

    @compiled(types.uint64, *[PLACE] * 14)
    def estimates(
        builder, found, above, tile, W, ahead, numbers, unit, base, limit, scale, extra, step, coef, E
    ):
        """Estimate (sum of code * number * unit + base) * scale + extra columns * coef, as float32.

        Write a bit per row whose estimate is above the limit, 64 bits per query, and the estimates of queries
        that have any; return the bits of all queries together. numbers: of int8, 8W per query, or 8 more if W
        is odd. unit, base, limit: of queries. scale, extra: of rows, E columns, `step` bytes from one to the
        next. coef: E per query. What is `ahead` of the tile is fetched meanwhile.
        """
        totals = _sums(builder, per_byte, count, tile, W, ahead, numbers)
        factors = [load(builder, builder.add(scale, I64(64 * part)), _FLOATS) for part in _PARTS]
        values = []
        for q in range(count):
            of_query = [all_of(builder, _FLOATS, _float_at(builder, place, q)) for place in (unit, base)]
            for part in _PARTS:
                value = builder.sitofp(totals[q * len(_PARTS) + part], _FLOATS)
                values.append(builder.fmul(_fma(builder, value, *of_query), factors[part]))
        values, every = _with_columns(builder, values, count, extra, step, coef, E), I64(0)
        for q in range(count):
            own, bits = values[q * len(_PARTS) : (q + 1) * len(_PARTS)], I64(0)
            least = all_of(builder, _FLOATS, _float_at(builder, limit, q))
            for part, value in enumerate(own):
                is_above = builder.bitcast(builder.fcmp_ordered(">", value, least), ir.IntType(_LANES))
                bits = builder.or_(bits, builder.shl(builder.zext(is_above, I64), I64(_LANES * part)))
            every = builder.or_(every, bits)
            store(builder, bits, builder.add(above, I64(8 * q)))
            with builder.if_then(builder.icmp_unsigned("!=", bits, I64(0)), likely=False):
                for part, value in enumerate(own):
                    store(builder, value, builder.add(found, I64(4 * ROWS * q + 64 * part)))
        return every

    return estimates


def _sums(builder, per_byte, count, tile, W, ahead, numbers):
    """Return the registers of sums of products of each query with 64 rows."""
    groups = max(2, per_byte)  # per step
    size = GROUP * groups // per_byte
    lanes = 2 if count == 1 else 1  # of sums that do not wait for each other
    entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    w, totals = builder.phi(I64), [builder.phi(_SUMS) for _ in range(count * len(_PARTS) * lanes)]
    first, place = builder.add(tile, builder.mul(w, I64(size))), builder.mul(w, I64(4 * groups))
    for line in range(0, size, LINE):
        fetch_line(builder, builder.add(builder.add(first, ahead), I64(line)))
    columns = builder.shl(builder.and_(builder.add(W, I64(1)), I64(-2)), I64(3))
    queries = [builder.add(builder.add(numbers, builder.mul(columns, I64(q))), place) for q in range(count)]
    new = list(totals)
    for group, codes in enumerate(_groups(builder, first, per_byte)):
        for q, query in enumerate(queries):
            four = all_of(builder, _SUMS, load(builder, builder.add(query, I64(4 * group)), I32))
            for part in _PARTS:
                at = (q * len(_PARTS) + part) * lanes + group % lanes
                new[at] = _product(builder, new[at], codes[part], four)
    after = builder.add(w, I64(1))
    w.add_incoming(I64(0), entry)
    w.add_incoming(after, loop)
    for total, value in zip(totals, new, strict=True):
        total.add_incoming(ir.Constant(_SUMS, [0] * _LANES), entry)
        total.add_incoming(value, loop)
    builder.cbranch(builder.icmp_unsigned("<", after, _steps(builder, W, per_byte)), loop, done)
    builder.position_at_end(done)
    return new if lanes == 1 else [builder.add(*new[at : at + 2]) for at in range(0, len(new), 2)]


def _with_columns(builder, values, count, extra, step, coef, E):
    """Add E columns of rows, times coef of each query, to the values of queries."""
    entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    e, known = builder.phi(I64), [builder.phi(_FLOATS) for _ in values]
    column = builder.add(extra, builder.mul(e, step))
    of_rows = [load(builder, builder.add(column, I64(64 * part)), _FLOATS) for part in _PARTS]
    new, after = [], builder.add(e, I64(1))
    for q in range(count):
        at = builder.add(builder.mul(E, I64(q)), e)
        times = all_of(builder, _FLOATS, load(builder, builder.add(coef, builder.mul(at, I64(4))), _FLOAT))
        for part in _PARTS:
            new.append(_fma(builder, of_rows[part], times, known[q * len(_PARTS) + part]))
    e.add_incoming(I64(0), entry)
    e.add_incoming(after, loop)
    for phi, value, last in zip(known, values, new, strict=True):
        phi.add_incoming(value, entry)
        phi.add_incoming(last, loop)
    builder.cbranch(builder.icmp_unsigned("<", after, E), loop, done)
    builder.position_at_end(done)
    return new


def _groups(builder, first, per_byte):
    """Return the registers of some groups of four dimensions: codes of 64 rows in each."""
    every = [
        [load(builder, builder.add(first, I64(at + 64 * part)), _CODES) for part in _PARTS]
        for at in range(0, 2 * GROUP if per_byte == 1 else GROUP, GROUP)
    ]
    if per_byte == 1:
        return every
    return [[_code(builder, codes, n, 8 // per_byte) for codes in every[0]] for n in range(per_byte)]


def _code(builder, codes, n, bits):
    """Return the n-th codes of bytes, by a shift of words: of one of bytes LLVM makes slow instructions."""
    words = builder.lshr(builder.bitcast(codes, _HALVES), ir.Constant(_HALVES, [bits * n] * 32))
    return builder.and_(builder.bitcast(words, _CODES), ir.Constant(_CODES, [(1 << bits) - 1] * 64))


def _product(builder, total, codes, numbers):
    """Multiply codes by numbers of int8, and add four neighbours to each sum."""
    kind = ir.FunctionType(_SUMS, [_SUMS] * 3)
    call = builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), kind)
    return builder.call(call, [total, *(builder.bitcast(value, _SUMS) for value in (codes, numbers))])


#: By codes per byte.
packs = {per_byte: _pack(per_byte) for per_byte in (2, 4)}
estimates_of_one = {per_byte: _estimates(per_byte, 1) for per_byte in (1, 2, 4)}
estimates_of_four = {per_byte: _estimates(per_byte, TOGETHER) for per_byte in (1, 2, 4)}


@compiled(types.void, *[PLACE] * 3)
def squares(builder, sums, tile, W):
    """Write, as int32, the sums of code * (code - 128) of 64 rows, and then those of codes."""
    flip, one = ir.Constant(_CODES, [-128] * 64), ir.Constant(_CODES, [1] * 64)
    totals = [
        [cgutils.alloca_once_value(builder, ir.Constant(_SUMS, [0] * _LANES)) for _ in _PARTS] for _ in "sc"
    ]
    with cgutils.for_range(builder, builder.mul(W, I64(2))) as loop:
        first = builder.add(tile, builder.mul(loop.index, I64(GROUP)))
        for part in _PARTS:
            codes = load(builder, builder.add(first, I64(64 * part)), _CODES)
            for places, numbers in zip(totals, (builder.xor(codes, flip), one), strict=True):
                place = places[part]
                builder.store(_product(builder, builder.load(place), codes, numbers), place)
    for at, place in enumerate(totals[0] + totals[1]):
        store(builder, builder.load(place), builder.add(sums, I64(4 * _LANES * at)))


def _float_at(builder, place, q):
    return load(builder, builder.add(place, I64(4 * q)), _FLOAT)


def _fma(builder, x, y, z):
    """Return x * y + z, rounded once."""
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    return builder.call(builder.module.declare_intrinsic("llvm.fma.v16f32", (), kind), [x, y, z])
