"""Inner products of bytes in registers: values as 16 bits, sums of two products per lane.

LLVM recognizes the pattern (16-bit numbers multiplied to 32 bits, neighbours added) as one instruction on x86
(pmaddwd) and two on ARM. No instruction set is named.
"""

from itertools import chain

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gpuzip.loops._vector import load

#: Dims per step; queries are padded to a multiple of it.
WIDTH = 16
_SHORT, _LONG = (ir.VectorType(ir.IntType(bits), WIDTH) for bits in (16, 32))
_HALF = ir.VectorType(ir.IntType(32), WIDTH // 2)


def dots(rows, queries):
    """Return a function that writes the inner products of some rows with some queries.

    dots(out, o, stride, codes, c, D, asked, q, E, flip): out[o + r*stride + w] = sum over d < E of
    (codes[c + r*D + d] ^ flip) * asked[q + w*E + d], for r < rows, w < queries. Flat arrays: out int32, codes
    uint8, asked int16. E is a multiple of WIDTH, and E bytes of a row are read. Nothing is checked.
    """

    @intrinsic
    def dots(context, out, o, stride, codes, c, D, asked, q, E, flip):
        word = types.uintp
        signature = types.void(out, word, word, codes, word, word, asked, word, word, types.uint8)

        def generate(context, builder, signature, arguments):
            out, codes, asked = (
                context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 3, 6)
            )
            o, stride, c, D, q, E = (arguments[i] for i in (1, 2, 4, 5, 7, 8))
            integer = o.type
            row = [builder.gep(codes, [builder.add(c, builder.mul(D, integer(r)))]) for r in range(rows)]
            ask = [builder.gep(asked, [builder.add(q, builder.mul(E, integer(w)))]) for w in range(queries)]
            flips = ir.Constant(ir.VectorType(ir.IntType(8), WIDTH), ir.Undefined)
            for i in range(WIDTH):
                flips = builder.insert_element(flips, arguments[9], ir.IntType(32)(i))
            entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            d = builder.phi(integer)
            sums = [[builder.phi(_HALF) for _ in range(queries)] for _ in range(rows)]
            y = [builder.sext(load(builder, p, d, _SHORT, 2), _LONG) for p in ask]
            new = []
            for r in range(rows):
                bytes_ = load(builder, row[r], d, ir.VectorType(ir.IntType(8), WIDTH), 1)
                x = builder.zext(builder.xor(bytes_, flips), _LONG)
                new.append([builder.add(sums[r][w], _paired(builder, x, y[w])) for w in range(queries)])
            following = builder.add(d, integer(WIDTH))
            d.add_incoming(integer(0), entry)
            d.add_incoming(following, loop)
            for old, value in zip(chain(*sums), chain(*new), strict=True):
                old.add_incoming(ir.Constant(_HALF, [0] * (WIDTH // 2)), entry)
                old.add_incoming(value, loop)
            builder.cbranch(builder.icmp_unsigned("<", following, E), loop, done)
            builder.position_at_end(done)
            total = builder.module.declare_intrinsic(
                f"llvm.vector.reduce.add.v{WIDTH // 2}i32", (), ir.FunctionType(ir.IntType(32), [_HALF])
            )
            for r in range(rows):
                for w in range(queries):
                    at = builder.add(o, builder.add(builder.mul(stride, integer(r)), integer(w)))
                    builder.store(builder.call(total, [new[r][w]]), builder.gep(out, [at]))
            return context.get_dummy_value()

        return signature, generate

    return dots


def _paired(builder, x, y):
    """Multiply two vectors and add each odd product to the even one before it."""
    product = builder.mul(x, y)
    kind = ir.VectorType(ir.IntType(32), WIDTH // 2)
    even, odd = (
        builder.shuffle_vector(product, product, ir.Constant(kind, list(range(first, WIDTH, 2))))
        for first in (0, 1)
    )
    return builder.add(even, odd)
