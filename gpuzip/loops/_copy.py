"""Copies of a few words between two addresses."""

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


@intrinsic
def copy_words(typing, source, target, size, width):
    """Copy `size` bytes between two addresses: all words of `width` bytes at once, then the rest.

    In a loop over words the compiler would have to assume that every store can change the next load.
    """

    def generate(context, builder, signature, arguments):
        source, target, size, _ = arguments
        if len(width) == 0:
            byte = ir.IntType(8).as_pointer()
            cgutils.raw_memcpy(
                builder, builder.inttoptr(target, byte), builder.inttoptr(source, byte), size, 1
            )
        else:
            bits = width.dtype.bitwidth
            words = ir.VectorType(ir.IntType(bits), len(width)).as_pointer()
            value = builder.load(builder.inttoptr(source, words), align=bits // 8)
            builder.store(value, builder.inttoptr(target, words), align=bits // 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, width), generate


@intrinsic
def byte_at(typing, address):
    """Return the byte at an address."""
    return types.int64(types.intp), _load_of(8)


@intrinsic
def word_at(typing, address):
    """Return the int64 at an address."""
    return types.int64(types.intp), _load_of(64)


def _load_of(bits):
    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
        value = builder.load(pointer, align=bits // 8)
        return builder.zext(value, ir.IntType(64)) if bits < 64 else value

    return generate


@intrinsic
def prefetch(typing, address):
    """Ask for the cache line at an address, which need not be valid."""

    def generate(context, builder, signature, arguments):
        pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
        call = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), kind)
        builder.call(call, [builder.inttoptr(arguments[0], pointer), flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(types.intp), generate
