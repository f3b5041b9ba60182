"""Operations on bits that numba lacks, as single LLVM instructions that vectorize."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def popcount(context, word):
    """Count the set bits: uint64 -> uint64."""
    if word != types.uint64:
        return None

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def trailing_zeros(context, word):
    """Count the zeros below the lowest set bit: uint64, not 0 -> uint64."""
    if word != types.uint64:
        return None

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.uint64(types.uint64), generate


@intrinsic
def as_float(context, value):
    """Convert a float32, or a uint16 with the bits of a bfloat16, to float32."""
    if value == types.float32:
        return types.float32(value), lambda context, builder, signature, arguments: arguments[0]
    if value != types.uint16:
        return None

    def generate(context, builder, signature, arguments):
        word = ir.IntType(32)
        return builder.bitcast(builder.shl(builder.zext(arguments[0], word), word(16)), ir.FloatType())

    return types.float32(value), generate
