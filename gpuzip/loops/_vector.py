"""Short vectors of floats in registers, which numba does not make of plain loops.

Each function generates a few LLVM instructions on vectors of `width` floats. LLVM translates them for the
CPU.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_FLOAT = ir.FloatType()


def sum_of_entries(width, rows):
    """Return a function that sums table entries for several rows at once, each sum in one register.

    sums(out, i, tables, K, codes, c, M): out[i + r*width + w] = sum over m, in order, of
    tables[(m*K + codes[c + r*M + m])*width + w], for r < rows, w < width. Flat arrays: out and tables
    of float32, codes unsigned. M >= 1. Nothing is checked.
    """

    @intrinsic
    def sums(context, out, i, tables, K, codes, c, M):
        word = types.uintp
        signature = types.void(out, word, tables, word, codes, word, word)

        def generate(context, builder, signature, arguments):
            def data(at):
                return context.make_array(signature.args[at])(context, builder, arguments[at]).data

            out, i, tables, K, codes, c, M = (
                data(0),
                arguments[1],
                data(2),
                arguments[3],
                data(4),
                *arguments[5:],
            )
            integer, vector = i.type, ir.VectorType(_FLOAT, width)
            codes = builder.gep(codes, [c])
            starts = [builder.gep(codes, [builder.mul(M, integer(r))]) for r in range(rows)]
            entry, loop, done = builder.block, builder.append_basic_block(), builder.append_basic_block()
            builder.branch(loop)
            builder.position_at_end(loop)
            m, first = builder.phi(integer), builder.phi(integer)  # first: m * K
            totals = [builder.phi(vector) for _ in range(rows)]
            nexts = []
            for start, total in zip(starts, totals, strict=True):
                code = builder.zext(builder.load(builder.gep(start, [m])), integer)
                at = builder.mul(builder.add(first, code), integer(width))
                nexts.append(builder.fadd(total, load(builder, tables, at, vector)))
            next_m, next_first = builder.add(m, integer(1)), builder.add(first, K)
            for phi, value, start in [(m, next_m, integer(0)), (first, next_first, integer(0))] + [
                (total, value, vector([0.0] * width)) for total, value in zip(totals, nexts, strict=True)
            ]:
                phi.add_incoming(start, entry)
                phi.add_incoming(value, loop)
            builder.cbranch(builder.icmp_unsigned("<", next_m, M), loop, done)
            builder.position_at_end(done)
            for r, value in enumerate(nexts):
                store(builder, value, out, builder.add(i, integer(r * width)))
            return context.get_dummy_value()

        return signature, generate

    return sums


def max_into(width):
    """Return max_into(best, i, values, j, f): best[i+w] = max(best[i+w], values[j+w] * f), w < width."""

    @intrinsic
    def max_into(context, best, i, values, j, factor):
        signature = types.void(best, types.uintp, values, types.uintp, types.float32)

        def generate(context, builder, signature, arguments):
            vector = ir.VectorType(_FLOAT, width)
            best, values = (
                context.make_array(signature.args[at])(context, builder, arguments[at]).data for at in (0, 2)
            )
            old = load(builder, best, arguments[1], vector)
            factor = ir.Constant(vector, ir.Undefined)
            for w in range(width):
                factor = builder.insert_element(factor, arguments[4], ir.IntType(32)(w))
            new = builder.fmul(load(builder, values, arguments[3], vector), factor)
            store(builder, builder.select(builder.fcmp_ordered(">", new, old), new, old), best, arguments[1])
            return context.get_dummy_value()

        return signature, generate

    return max_into


def above(width):
    """Return above(values, i, limit): a bit for each of values[i : i + width] that is above the limit."""

    @intrinsic
    def above(context, values, i, limit):
        signature = types.uint64(values, types.uintp, types.float32)

        def generate(context, builder, signature, arguments):
            data = context.make_array(values)(context, builder, arguments[0]).data
            vector = ir.VectorType(_FLOAT, width)
            limits = ir.Constant(vector, ir.Undefined)
            for w in range(width):
                limits = builder.insert_element(limits, arguments[2], ir.IntType(32)(w))
            found = builder.fcmp_ordered(">", load(builder, data, arguments[1], vector), limits)
            return builder.zext(builder.bitcast(found, ir.IntType(width)), ir.IntType(64))

        return signature, generate

    return above


def load(builder, array, at, kind, align=4):
    """Generate the load of a vector of this kind from array[at]."""
    value = builder.load(builder.bitcast(builder.gep(array, [at]), kind.as_pointer()))
    value.align = align
    return value


def store(builder, value, array, at, align=4):
    where = builder.bitcast(builder.gep(array, [at]), value.type.as_pointer())
    builder.store(value, where).align = align
