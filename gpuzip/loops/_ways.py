"""Steps of Viterbi's search of a trellis for 8 rows at once, in vector registers.

Each function generates a few LLVM instructions on vectors, which numba does not make of these loops.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from gpuzip.loops._vector import load, store

#: Rows per vector.
WIDTH = 8
_INT = ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(ir.FloatType(), WIDTH), ir.VectorType(_INT, WIDTH)
_BYTES = ir.VectorType(ir.IntType(8), WIDTH)
_WAYS = 4
#: Of the levels of each way, modulo 4.
RESIDUES = (0, 2, 3, 1)


def _floats(value):
    return ir.Constant(_FLOATS, [value] * WIDTH)


def _ints(value):
    return ir.Constant(_INTS, [value] * WIDTH)


def _all(builder, kind, value):
    """Generate a vector of this kind, all of whose entries are the value."""
    vector = ir.Constant(kind, ir.Undefined)
    for w in range(WIDTH):
        vector = builder.insert_element(vector, value, _INT(w))
    return vector


def _data(context, builder, signature, values, at):
    return context.make_array(signature.args[at])(context, builder, values[at]).data


def _sizes(builder, y, largest):
    """Generate magnitudes, at most `largest`, and the first of the four levels that are tried for each."""
    size = builder.select(builder.fcmp_ordered("<", y, _floats(0.0)), builder.fneg(y), y)
    size = builder.select(builder.fcmp_ordered("<", size, largest), size, largest)
    base = builder.sub(builder.fptosi(size, _INTS), _ints(1))
    return size, builder.select(builder.icmp_signed(">", base, _ints(0)), base, _ints(0))


@intrinsic
def first_levels(context, y, i, largest, last, base):
    """base[i + w] = the first level that is tried for y[i + w], at most `last`, for w < WIDTH."""
    signature = types.void(y, types.uintp, types.float32, types.int32, base)

    def generate(context, builder, signature, values):
        given, out = (_data(context, builder, signature, values, at) for at in (0, 4))
        largest, last = _all(builder, _FLOATS, values[2]), _all(builder, _INTS, values[3])
        _, found = _sizes(builder, load(builder, given, values[1], _FLOATS), largest)
        found = builder.select(builder.icmp_signed("<", found, last), found, last)
        store(builder, found, out, values[1])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_four(context, source, at, out, to):
    """out[to + w] = source[at + w] for the four ways w."""
    signature = types.void(source, types.uintp, out, types.uintp)

    def generate(context, builder, signature, values):
        source, out = (_data(context, builder, signature, values, at) for at in (0, 2))
        four = load(builder, source, values[1], ir.VectorType(ir.FloatType(), _WAYS))
        store(builder, four, out, values[3])
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def least_of_ways(context, y, i, largest, costs, even_zero, odd_zero, least, chosen, column):
    """least[32 * way + i + w], chosen[column + 32 * way + i + w] = the cost and the level of each way.

    costs[4 * (i + w) + way]: of the bits of the way's level that is not 0.
    """
    signature = types.void(
        *(y, types.uintp, types.float32, costs, types.float32, types.float32, least, chosen, types.uintp)
    )

    def generate(context, builder, signature, values):
        given, costs, least, chosen = (_data(context, builder, signature, values, at) for at in (0, 3, 6, 7))
        i, word = values[1], values[1].type
        y = load(builder, given, i, _FLOATS)
        size, base = _sizes(builder, y, _all(builder, _FLOATS, values[2]))
        negative = builder.fcmp_ordered("<", y, _floats(0.0))
        square = builder.fmul(size, size)
        zeros = {0: values[4], 2: values[5]}
        every = load(
            builder, costs, builder.mul(i, word(_WAYS)), ir.VectorType(ir.FloatType(), _WAYS * WIDTH)
        )
        for way, residue in enumerate(RESIDUES):
            mask = ir.Constant(_INTS, [way + _WAYS * w for w in range(WIDTH)])
            bits = builder.shuffle_vector(every, every, mask)
            level = builder.add(base, builder.and_(builder.sub(_ints(residue), base), _ints(3)))
            off = builder.fsub(size, builder.sitofp(level, _FLOATS))
            cost = builder.fadd(builder.fmul(off, off), bits)
            if way in zeros:
                zero = builder.fadd(square, _all(builder, _FLOATS, zeros[way]))
                better = builder.fcmp_ordered("<", zero, cost)
                cost = builder.select(better, zero, cost)
                level = builder.select(better, _ints(0), level)
            level = builder.select(negative, builder.sub(_ints(0), level), level)
            place = builder.add(i, word(32 * way))
            store(builder, cost, least, place)
            store(builder, level, chosen, builder.add(values[8], place))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def survivors(context, total, from0, from1, least, way0, way1, fresh, to, took, column):
    """fresh[to + w] = the lesser of the two ways into a state; took[column + to + w] = whether the second."""
    word = types.uintp
    signature = types.void(total, word, word, least, word, word, fresh, word, took, word)

    def generate(context, builder, signature, values):
        total, least, fresh, took = (_data(context, builder, signature, values, at) for at in (0, 3, 6, 8))
        ways = [
            builder.fadd(load(builder, total, values[a], _FLOATS), load(builder, least, values[b], _FLOATS))
            for a, b in ((1, 4), (2, 5))
        ]
        second = builder.fcmp_ordered("<", ways[1], ways[0])
        store(builder, builder.select(second, ways[1], ways[0]), fresh, values[7])
        place = builder.add(values[9], values[7])
        store(builder, builder.zext(second, _BYTES), took, place, 1)
        return context.get_dummy_value()

    return signature, generate
