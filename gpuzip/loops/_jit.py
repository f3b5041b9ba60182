"""How every loop is compiled: on its first call, without the interpreter lock, kept for later processes.

What is kept is found by the file of the function alone: a loop calls no compiled function of another file,
or it would go on running that file's old code after an edit. What `_vector`, `_words` and `_shuffle` write
into a loop is part of its code too: after an edit of theirs, remove `gpuzip/loops/__pycache__`.
"""

import numba
from numba.core import types
from numba.extending import intrinsic

UNROLLED = 16  # the longest size that loops are compiled for one by one


def jit(**options):
    """numba.njit that keeps what it compiled on disk wherever a folder can be written, else in memory."""

    def compiled(function):
        settings = {"nogil": True, "error_model": "numpy"} | options
        try:
            return numba.njit(cache=True, **settings)(function)
        except RuntimeError:  # no folder that could hold it
            return numba.njit(**settings)(function)

    return compiled


def unrolled(size, of=0):
    """A tuple of this length: compiled code knows it as a constant, and is compiled once for each."""
    return (of,) * size


@intrinsic
def wide_vectors(typing):
    """Called in a loop's function, it asks for the widest vectors there are; x86 would use half of them."""

    def generate(context, builder, signature, arguments):
        attributes = builder.function.attributes
        if isinstance(attributes, set):  # its own add() knows no attribute of this kind
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate
