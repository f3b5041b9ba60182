"""Codes of 2 to 8 bits per dimension as bytes in tiles of 64 rows, and their products with queries of int8.

A tile holds four dimensions of 64 rows, then the next four, so that each product of AVX-512 VNNI adds to the
sums of 16 rows. In a packed tile, a byte holds a code below 16 and, in its upper half, that of four dimensions
on. Arguments are addresses. Nothing is checked.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from gpuzip.loops._blocks import LINE
from gpuzip.loops._jit import has_features
from gpuzip.loops._vectors256 import I8, I16, I32, I64, PLACE, REAL, compiled, fetch_line, load, shuffled, store

ROWS = 64  # of a tile
TOGETHER = 4  # queries of `products_of_four`
GROUP = 4 * ROWS  # bytes of four dimensions of a tile
_LANES = 16  # rows per register
_PARTS = range(ROWS // _LANES)
_CODES, _SUMS = ir.VectorType(I8, 64), ir.VectorType(I32, _LANES)
_FLOATS = ir.VectorType(ir.FloatType(), _LANES)
_HALVES = ir.VectorType(I16, 32)


def is_here():
    """Return whether this CPU has the instructions and numba may use them."""
    return has_features("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni")


def bytes_of_tile(W, packed=False):
    """Return the bytes of a tile of rows whose planes have W bytes per bit."""
    return (1 if packed else 2) * GROUP * W


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
        codes = _with_bits(builder, zeros, rows[0], j, _of_bytes(builder, highest))
        entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        weight, at, known = builder.phi(I64), builder.phi(I64), [builder.phi(_CODES) for _ in codes]
        lower, after = builder.lshr(weight, I64(1)), builder.add(at, W)
        new = _with_bits(builder, known, rows[1], at, _of_bytes(builder, lower))
        pairs = [(weight, highest, lower), (at, j, after), *zip(known, codes, new, strict=True)]
        for phi, first, value in pairs:
            phi.add_incoming(first, entry)
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_unsigned(">", lower, I64(1)), loop, done)
        builder.position_at_end(done)
        into = builder.add(tile, builder.mul(j, I64(2 * GROUP)))
        words = [builder.bitcast(value, _SUMS) for value in new]
        for group, value in enumerate(_transposed(builder, words)):
            store(builder, value, builder.add(into, I64(group * GROUP)))


def _with_bits(builder, codes, rows, at, weight):
    """Add weight to each code whose bit is set, of 64 bits from each row's byte `at`."""
    kind, found = ir.VectorType(ir.IntType(1), 64), []
    for value, row in zip(codes, rows, strict=True):
        is_set = builder.bitcast(load(builder, builder.add(row, at), I64), kind)
        found.append(builder.select(is_set, builder.add(value, weight), value))
    return found


def _of_bytes(builder, value):
    """Return a register whose bytes are all this one."""
    one = builder.insert_element(ir.Constant(_CODES, ir.Undefined), builder.trunc(value, I8), I32(0))
    return shuffled(builder, one, one, [0] * 64)


def _transposed(builder, rows):
    """Transpose 16 vectors of 16 words in four rounds, which exchange blocks of 1, 2, 4 and 8."""
    for size in (1, 2, 4, 8):
        new = list(rows)
        for n in range(16):
            if not n & size:
                pair = rows[n], rows[n + size]
                new[n] = shuffled(builder, *pair, [m if not m & size else m - size + 16 for m in range(16)])
                new[n + size] = shuffled(
                    builder, *pair, [m + size if not m & size else m + 16 for m in range(16)]
                )
        rows = new
    return rows


@compiled(types.void, *[PLACE] * 3)
def pack(builder, packed, tile, W):
    """Write a tile, of codes below 16, as a packed one."""
    four = ir.Constant(_CODES, [4] * 64)
    with cgutils.for_range(builder, W) as loop:
        into = builder.add(packed, builder.mul(loop.index, I64(GROUP)))
        first = builder.add(tile, builder.mul(loop.index, I64(2 * GROUP)))
        for part in _PARTS:
            low, high = (load(builder, builder.add(first, I64(64 * part + at)), _CODES) for at in (0, GROUP))
            value = builder.or_(low, builder.shl(high, four))
            store(builder, value, builder.add(into, I64(64 * part)))


def _products(is_packed, count):
    """Return the products of a tile, packed or not, with so many queries."""

    @compiled(types.void, *[PLACE] * 6)
    def products(builder, sums, tile, W, asked, apart, ahead):
        """Write the sum of code * number over all dimensions, of 64 rows for each query, as int32.

        asked: 8W numbers of int8 per query, `apart` bytes from query to query. What is `ahead` of the tile is
        fetched meanwhile.
        """
        size = GROUP if is_packed else 2 * GROUP
        lanes = 2 if count == 1 else 1  # of sums that do not wait for each other
        entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
        builder.branch(loop)
        builder.position_at_end(loop)
        w, totals = builder.phi(I64), [builder.phi(_SUMS) for _ in range(count * len(_PARTS) * lanes)]
        first, place = builder.add(tile, builder.mul(w, I64(size))), builder.mul(w, I64(8))
        for line in range(0, size, LINE):
            fetch_line(builder, builder.add(builder.add(first, ahead), I64(line)))
        queries = [builder.add(builder.add(asked, builder.mul(apart, I64(q))), place) for q in range(count)]
        new = list(totals)
        for half, codes in enumerate(_halves(builder, first, is_packed)):
            for q, query in enumerate(queries):
                numbers = _of_words(builder, load(builder, builder.add(query, I64(4 * half)), I32))
                for part in _PARTS:
                    at = (q * len(_PARTS) + part) * lanes + half % lanes
                    new[at] = _product(builder, new[at], codes[part], numbers)
        after = builder.add(w, I64(1))
        w.add_incoming(I64(0), entry)
        w.add_incoming(after, loop)
        for total, value in zip(totals, new, strict=True):
            total.add_incoming(ir.Constant(_SUMS, [0] * _LANES), entry)
            total.add_incoming(value, loop)
        builder.cbranch(builder.icmp_unsigned("<", after, W), loop, done)
        builder.position_at_end(done)
        for at in range(0, len(new), lanes):
            value = new[at] if lanes == 1 else builder.add(new[at], new[at + 1])
            store(builder, value, builder.add(sums, I64(at // lanes * 4 * _LANES)))

    return products


def _halves(builder, first, is_packed):
    """Return the registers of two groups of four dimensions: codes of 64 rows in each."""
    if not is_packed:
        return [
            [load(builder, builder.add(first, I64(at + 64 * part)), _CODES) for part in _PARTS]
            for at in (0, GROUP)
        ]
    low, both = ir.Constant(_CODES, [15] * 64), [
        load(builder, builder.add(first, I64(64 * part)), _CODES) for part in _PARTS
    ]
    four = ir.Constant(_CODES, [4] * 64)
    return [[builder.and_(codes, low) for codes in both], [builder.lshr(codes, four) for codes in both]]


def _product(builder, total, codes, numbers):
    """Multiply codes by numbers of int8, and add four neighbours to each sum."""
    kind = ir.FunctionType(_SUMS, [_SUMS] * 3)
    call = builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.512", (), kind)
    return builder.call(call, [total, *(builder.bitcast(value, _SUMS) for value in (codes, numbers))])


def _of_words(builder, word):
    one = builder.insert_element(ir.Constant(_SUMS, ir.Undefined), word, I32(0))
    return shuffled(builder, one, one, [0] * _LANES)


#: By whether tiles are packed.
products_of_one = {packed: _products(packed, 1) for packed in (False, True)}
products_of_four = {packed: _products(packed, TOGETHER) for packed in (False, True)}


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


@compiled(types.uint64, *[PLACE] * 3, *[PLACE] * 4, types.int32, *[REAL] * 2)
def estimates(builder, into, sums, scale, extra, apart, coef, E, offset, unit, limit):
    """Write unit * (2 * sum + offset) * scale + extra columns * coef of 64 rows as float32.

    Return a bit for each that is above the limit. extra: E columns, `apart` bytes from one to the next.
    """
    added, factor = _of_words(builder, offset), _of_floats(builder, unit)
    places = [cgutils.alloca_once(builder, _FLOATS) for _ in _PARTS]
    for part, place in enumerate(places):
        at = I64(4 * _LANES * part)
        total = load(builder, builder.add(sums, at), _SUMS)
        whole = builder.sitofp(builder.add(builder.add(total, total), added), _FLOATS)
        of_rows = load(builder, builder.add(scale, at), _FLOATS)
        builder.store(builder.fmul(builder.fmul(whole, factor), of_rows), place)
    with cgutils.for_range(builder, E) as loop:
        weight = load(builder, builder.add(coef, builder.mul(loop.index, I64(4))), ir.FloatType())
        column, times = builder.add(extra, builder.mul(loop.index, apart)), _of_floats(builder, weight)
        for part, place in enumerate(places):
            values = load(builder, builder.add(column, I64(4 * _LANES * part)), _FLOATS)
            builder.store(builder.fadd(builder.load(place), builder.fmul(values, times)), place)
    bits, least = I64(0), _of_floats(builder, limit)
    for part, place in enumerate(places):
        found = builder.load(place)
        store(builder, found, builder.add(into, I64(4 * _LANES * part)))
        above = builder.bitcast(builder.fcmp_ordered(">", found, least), ir.IntType(_LANES))
        bits = builder.or_(bits, builder.shl(builder.zext(above, I64), I64(_LANES * part)))
    return bits


def _of_floats(builder, value):
    one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, I32(0))
    return shuffled(builder, one, one, [0] * _LANES)
