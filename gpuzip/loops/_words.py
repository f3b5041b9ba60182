"""What a word of bits says, where numba has no name for it: one instruction each, in vectors too."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def popcount(context, word):
    """uint64 -> uint64: the number of set bits."""
    if word != types.uint64:
        return None

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def as_float(context, value):
    """float32 of a float32, or of a uint16 that holds the bits of a bfloat16."""
    if value == types.float32:
        return types.float32(value), lambda context, builder, signature, arguments: arguments[0]
    if value != types.uint16:
        return None

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(arguments[0], word), word(16)), ir.FloatType())

    return types.float32(value), generate
