"""Registers of 256 bits and memory at addresses, for functions that generate LLVM instructions for loops.

Nothing is checked.
"""

from functools import cache
from inspect import signature

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

ROWS = 32  # rows per call
I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
LANES = 2  # of 16 bytes; a shuffle reads its table within a lane
LANE, BYTES = ir.VectorType(I8, 16), ir.VectorType(I8, ROWS)
HALVES, FLOATS = ir.VectorType(I16, 16), ir.VectorType(ir.FloatType(), 8)
WORDS = ir.VectorType(I64, 4)
PLACES = range(0, ROWS, FLOATS.count)


@cache
def is_here():
    """Return whether this CPU has the instructions and numba may use them."""
    if not config.ENABLE_AVX:
        return False
    if config.CPU_FEATURES is not None:
        return "+avx2" in config.CPU_FEATURES.split(",")
    return config.CPU_NAME is None and bool(binding.get_host_cpu_features().get("avx2", False))


def compiled(result, *kinds):
    """Return a decorator that makes generate(builder, *arguments) a function of these types for loops."""

    def decorated(generate):
        def typed(context, *given):
            def lowered(context, builder, _, arguments):
                value = generate(builder, *arguments)
                return context.get_dummy_value() if value is None else value

            return result(*kinds), lowered

        typed.__name__, typed.__signature__ = generate.__name__, signature(generate)  # numba reads both
        return intrinsic(typed)

    return decorated


PLACE, REAL = types.intp, types.float32


@intrinsic
def address_of(context, array):
    """Return the address of an array's first entry."""

    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(context.make_array(array)(context, builder, arguments[0]).data, I64)

    return types.intp(array), generate


@compiled(types.intp, types.uint32)
def lowest(builder, bits):
    """Return the number of the lowest bit that is set, of which there must be one."""
    return builder.zext(builder.cttz(bits, ir.IntType(1)(1)), I64)


@compiled(types.void, *[PLACE] * 5)
def copy_rows(builder, target, source, stride, width, count):
    """Copy `count` rows of `width` bytes, `stride` bytes apart, next to each other."""
    with cgutils.for_range(builder, count) as loop:
        places = (builder.add(x, builder.mul(loop.index, y)) for x, y in ((target, width), (source, stride)))
        into, row = (builder.inttoptr(place, I8.as_pointer()) for place in places)
        cgutils.raw_memcpy(builder, into, row, width, 1)


def fetch_line(builder, line):
    """Ask for a cache line, which may be anywhere."""
    pointer = builder.inttoptr(line, I8.as_pointer())
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    call = builder.module.declare_intrinsic("llvm.prefetch", (pointer.type,), kind)
    builder.call(call, [pointer, I32(0), I32(3), I32(1)])  # to read, and to keep


prefetch = compiled(types.void, PLACE)(fetch_line)


def sums_as_floats(builder, sums, at):
    halves = load(builder, builder.add(sums, I64(2 * at)), ir.VectorType(I16, FLOATS.count))
    return builder.uitofp(builder.zext(halves, ir.VectorType(I32, FLOATS.count)), FLOATS)


def float_at(builder, address, n):
    return builder.add(address, I64(4 * n))


def floats(builder, value):
    """Return a register whose floats are all this one."""
    return all_of(builder, FLOATS, value)


def all_of(builder, kind, value):
    """Return a register of this kind whose entries are all this one."""
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    return shuffled(builder, one, one, [0] * kind.count)


def absolute(builder, value):
    kind, name = ir.FunctionType(FLOATS, [FLOATS]), f"llvm.fabs.v{FLOATS.count}f32"
    return builder.call(builder.module.declare_intrinsic(name, (), kind), [value])


def further(builder, order, x, y):
    """Return x where it is before y, by "<" or ">", else y."""
    return builder.select(builder.fcmp_ordered(order, x, y), x, y)


def furthest(builder, order, values):
    """Return the first of all floats of a register in this order."""
    for count in (4, 2, 1):
        parts = [shuffled(builder, values, values, range(at, at + count)) for at in (0, count)]
        values = further(builder, order, *parts)
    return builder.extract_element(values, I32(0))


def bits_of(builder, parts):
    """Return the bits of four vectors of booleans, the first lowest."""
    low, high = (shuffled(builder, *pair, range(16)) for pair in (parts[:2], parts[2:]))
    return builder.bitcast(shuffled(builder, low, high, range(ROWS)), I32)


def looked_up(builder, table, indices):
    """Return table[index] within each lane for indices below 16, and 0 for those above 127."""
    kind = ir.FunctionType(BYTES, [BYTES, BYTES])
    return builder.call(builder.module.declare_intrinsic("llvm.x86.avx2.pshuf.b", (), kind), [table, indices])


def spread(builder, lane):
    """Return a register whose lanes are all this one."""
    return shuffled(builder, lane, lane, list(range(16)) * LANES)


def shuffled(builder, x, y, order):
    order = list(order)
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(order)), order))


def in_order(builder, every, odd):
    """Return the sums of rows as two registers, of those of even rows plus 256 times those of odd ones."""
    kind = every.type
    even = builder.sub(every, builder.shl(odd, ir.Constant(kind, [8] * kind.count)))
    halves = range(0, kind.count, kind.count // 2)
    orders = (
        [at for i in range(kind.count // 2) for at in (first + i, kind.count + first + i)] for first in halves
    )
    return [shuffled(builder, even, odd, order) for order in orders]


def transposed(builder, rows):
    """Transpose as many vectors as they have words, by rounds that exchange blocks of 1, 2, 4 and so on."""
    count, size = len(rows), 1
    while size < count:
        new = list(rows)
        for n in range(count):
            if not n & size:
                pair = rows[n], rows[n + size]
                low = [m if not m & size else m - size + count for m in range(count)]
                high = [m + size if not m & size else m + count for m in range(count)]
                new[n], new[n + size] = shuffled(builder, *pair, low), shuffled(builder, *pair, high)
        rows, size = new, 2 * size
    return rows


def halves_added(builder, whole):
    """Return the sums of the first and the second half of a register."""
    half = whole.type.count // 2
    return builder.add(*(shuffled(builder, whole, whole, range(at, at + half)) for at in (0, half)))


def load(builder, address, kind):
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


def store(builder, value, address):
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1
