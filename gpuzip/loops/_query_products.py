"""Inner products of rows of bytes with a query, whose sizes, signs and sum are prepared.

AVX2 multiplies bytes without a sign by bytes with one, and adds two products in 16 bits, where they must
fit. The first are the sizes |w| <= 128 of the query's numbers, the second x = code - 128, so that a product
is at most 2**14. Where w < 0, all bits of x are turned, which makes it -x - 1. One "xor" with a mask does
both, and w * code is |w| * (code ^ mask) + 128 * w, and |w| more where w < 0.

AVX-512 VNNI multiplies codes without a sign by numbers with one, and adds four products in 32 bits: the query
is not changed, and masks are what codes are xor-ed with.

Arguments are addresses. Nothing is checked.
"""

import numpy as np
from llvmlite import ir
from numba import types

from gpuzip.loops._blocks import LINE
from gpuzip.loops._jit import has_features, jit
from gpuzip.loops._vectors256 import (
    BYTES,
    FLOATS,
    HALVES,
    I32,
    I64,
    PLACE,
    compiled,
    fetch_line,
    is_here,
    load,
    shuffled,
    store,
)

#: Dims per step; rows are read, and prepared queries are padded with zeros, to a multiple of it.
WIDTH = BYTES.count
TOGETHER = 4  # rows of `products_of_four`
_SUMS = ir.VectorType(I32, FLOATS.count)


def takes_signs():
    """Return whether this CPU has the instructions of VNNI and numba may use them."""
    return has_features("avx512vnni", "avx512vl")


def prepared(queries, flip):
    """Return queries (Q, D) int8 as bytes (Q, 2, E), factors and then masks, and what is added (Q,) int32.

    E is D, padded. flip: what codes are xor-ed with before.
    """
    Q, D = queries.shape
    whole = np.zeros((Q, D + -D % WIDTH), np.int8)
    whole[:, :D] = queries
    asked, added = np.empty((Q, 2, whole.shape[1]), np.uint8), np.empty(Q, np.int32)
    prepare(whole, flip, takes_signs(), asked.reshape(-1), added)
    return asked, added


@jit("void(int8[:, ::1], uint8, boolean, uint8[::1], int32[::1])")
def prepare(queries, flip, signs, asked, added):
    """Write what `prepared` returns, of queries (Q, E), which are padded. signs: whether factors have any."""
    Q, E = queries.shape
    for q in range(Q):
        query, more = queries[q], np.int32(0)
        factors, masks = asked[2 * E * q : 2 * E * q + E], asked[2 * E * q + E : 2 * E * (q + 1)]
        if signs:
            for d in range(E):
                factors[d], masks[d] = np.uint8(query[d]), flip
        else:
            for d in range(E):
                number = np.int32(query[d])
                factors[d] = np.uint8(abs(number))
                masks[d] = np.uint8(127 if number < 0 else 128) ^ flip
                more += 128 * number + max(-number, 0)
        added[q] = more


@compiled(types.void, *[PLACE] * 4, types.int32)
def products_of_one(builder, sums, codes, asked, E, added):
    """Do what `products_of_four` does for one row."""
    _write(builder, _products(builder, [codes], asked, E), sums, added)


@compiled(types.void, *[PLACE] * 5, types.int32)
def products_of_four(builder, sums, codes, apart, asked, E, added):
    """Write, as int32 at sums, code * w summed over all dims, plus `added`. apart: bytes from row to row.

    asked: E factors, then E masks. E bytes of a row are read. E is a multiple of WIDTH and at least that.
    """
    _write(builder, _products(builder, _rows(builder, codes, apart), asked, E), sums, added)


@compiled(types.void, *[PLACE] * 5, types.int32, PLACE)
def products_and_fetches(builder, sums, codes, apart, asked, E, added, ahead):
    """Do the same, and fetch as many bytes that are `ahead` of the first row, in their order."""
    first = builder.add(codes, ahead)
    _write(builder, _products(builder, _rows(builder, codes, apart), asked, E, first), sums, added)


def _rows(builder, codes, apart):
    return [builder.add(codes, builder.mul(apart, I64(r))) for r in range(TOGETHER)]


def _products(builder, rows, asked, E, fetched=None):
    """Return registers of products of rows at addresses, to be added. fetched: an address, or None."""
    entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    d, totals = builder.phi(I64), [builder.phi(_SUMS) for _ in rows]
    if fetched is not None:
        line = builder.add(fetched, builder.mul(d, I64(len(rows))))
        for n in range(0, len(rows) * WIDTH, LINE):
            fetch_line(builder, builder.add(line, I64(n)))
    factor, mask = (load(builder, builder.add(place, d), BYTES) for place in (asked, builder.add(asked, E)))
    new, after = [], builder.add(d, I64(WIDTH))
    for row, total in zip(rows, totals, strict=True):
        codes = builder.xor(load(builder, builder.add(row, d), BYTES), mask)
        new.append(_added(builder, total, factor, codes))
    d.add_incoming(I64(0), entry)
    d.add_incoming(after, loop)
    for total, value in zip(totals, new, strict=True):
        total.add_incoming(ir.Constant(_SUMS, [0] * _SUMS.count), entry)
        total.add_incoming(value, loop)
    builder.cbranch(builder.icmp_unsigned("<", after, E), loop, done)
    builder.position_at_end(done)
    return new


def _added(builder, total, factor, codes):
    """Return four more products added to each sum, in any order."""
    if not takes_signs():
        return builder.add(total, _of_pairs(builder, factor, codes))
    kind = ir.FunctionType(_SUMS, [_SUMS] * 3)
    multiplied = builder.module.declare_intrinsic("llvm.x86.avx512.vpdpbusd.256", (), kind)
    return builder.call(multiplied, [total, *(builder.bitcast(x, _SUMS) for x in (codes, factor))])


def _of_pairs(builder, size, signed):
    """Multiply bytes and add neighbours, four products to each sum, in any order."""
    if is_here():
        kinds = ir.FunctionType(HALVES, [BYTES, BYTES]), ir.FunctionType(_SUMS, [HALVES, HALVES])
        of_bytes, of_words = (
            builder.module.declare_intrinsic(f"llvm.x86.avx2.pmadd.{name}", (), kind)
            for name, kind in zip(("ub.sw", "wd"), kinds, strict=True)
        )
        pairs = builder.call(of_bytes, [size, signed])
        return builder.call(of_words, [pairs, ir.Constant(HALVES, [1] * HALVES.count)])
    wide = ir.VectorType(I32, WIDTH)
    products = builder.mul(builder.zext(size, wide), builder.sext(signed, wide))
    return _halved(builder, _halved(builder, products))


def _halved(builder, numbers):
    """Add each odd number to the even one before it."""
    order = range(0, numbers.type.count, 2), range(1, numbers.type.count, 2)
    return builder.add(*(shuffled(builder, numbers, numbers, every) for every in order))


def _write(builder, totals, sums, added):
    """Write the sum of each register plus `added`; those of four are added together."""
    if len(totals) == 1:
        kind = ir.FunctionType(I32, [_SUMS])
        total = builder.module.declare_intrinsic(f"llvm.vector.reduce.add.v{_SUMS.count}i32", (), kind)
        store(builder, builder.add(builder.call(total, totals), added), sums)
        return
    pairs = [_interleaved(builder, pair, 1) for pair in (totals[:2], totals[2:])]
    both = _interleaved(builder, pairs, 2)
    found = builder.add(*(shuffled(builder, both, both, range(at, at + TOGETHER)) for at in (0, TOGETHER)))
    one = builder.insert_element(ir.Constant(found.type, ir.Undefined), added, I32(0))
    store(builder, builder.add(found, shuffled(builder, one, one, [0] * TOGETHER)), sums)


def _interleaved(builder, pair, words):
    """Add the halves of each lane of two registers: so many words of the first one, then of the second."""
    starts = range(0, 2, words)
    low = [lane + at + x + n for lane in (0, 4) for at in starts for x in (0, 8) for n in range(words)]
    return builder.add(*(shuffled(builder, *pair, [at + more for at in low]) for more in (0, 2)))
