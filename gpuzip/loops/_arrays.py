"""Arrays of loops without numba's own memory and views, which take longer to compile than most loops."""

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

_LINE = 64  # bytes of a cache line


def local(count, dtype):
    """Return a function of loops that returns an array of `count` entries with any values.

    It is on the stack: the same memory each time within a loop's function, and gone when that returns.
    """
    entry = from_dtype(np.dtype(dtype))

    @intrinsic
    def memory(context):
        array = types.Array(entry, 1, "C")

        def generate(context, builder, signature, arguments):
            with builder.goto_entry_block():
                place = builder.alloca(ir.ArrayType(context.get_data_type(entry), count))
                place.align = _LINE
            return _array(context, builder, array, place, context.get_value_type(types.intp)(count))

        return array(), generate

    return memory


def at(dtype):
    """Return a function of loops that returns the array of `count` entries at an address."""
    entry = from_dtype(np.dtype(dtype))

    @intrinsic
    def placed(context, address, count):
        array = types.Array(entry, 1, "C")

        def generate(context, builder, signature, arguments):
            place = builder.inttoptr(arguments[0], context.get_data_type(entry).as_pointer())
            return _array(context, builder, array, place, arguments[1])

        return array(types.intp, types.intp), generate

    return placed


@intrinsic
def flat(context, array):
    """Return the entries of an array of several dimensions as an array of one, in the same memory."""
    flattened = types.Array(array.dtype, 1, "C")

    def generate(context, builder, signature, arguments):
        whole = context.make_array(array)(context, builder, arguments[0])
        return _array(context, builder, flattened, whole.data, whole.nitems)

    return flattened(array), generate


def _array(context, builder, kind, data, count):
    """Return an array of one dimension, of entries next to each other."""
    made, word = context.make_array(kind)(context, builder), context.get_value_type(types.intp)
    size = word(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    made.data, made.itemsize, made.nitems = builder.bitcast(data, made.data.type), size, count
    for name, value in (("shape", count), ("strides", size)):
        setattr(made, name, builder.insert_value(ir.ArrayType(word, 1)(ir.Undefined), value, 0))
    return made._getvalue()


halves, words, longs, counts = at(np.uint16), at(np.uint32), at(np.uint64), at(np.int64)
bytes_, integers, floats, doubles = at(np.uint8), at(np.int32), at(np.float32), at(np.float64)
