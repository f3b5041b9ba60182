"""Compiles loops on their first call, without the interpreter lock, and caches them for later processes.

numba invalidates its cache only if the file of a function changes. Therefore a loop calls no compiled
function of another file, whose old code would stay in the cache. What `_vector`, `_words`, `_shuffle` and
`_copy` generate becomes part of a loop too: after editing them, remove `gpuzip/loops/__pycache__`.
"""

from functools import cache

import numba
from llvmlite import binding
from numba.core import types
from numba.extending import intrinsic

UNROLLED = 16  # up to this size, loops are compiled for each size


def jit(signature=None, **options):
    """Return numba.njit with a cache on disk, or without one if no folder is writable.

    signature: what to compile now, and alone; without one, what the first calls need.
    """

    def compiled(function):
        settings = {"nogil": True, "error_model": "numpy"} | options
        try:
            return numba.njit(signature, cache=True, **settings)(function)
        except RuntimeError:  # no writable folder for the cache
            return numba.njit(signature, **settings)(function)

    return compiled


@cache
def has_features(*names):
    """Return whether this CPU has these instructions and numba may use them."""
    free = numba.config.CPU_NAME is None and numba.config.CPU_FEATURES is None and numba.config.ENABLE_AVX
    features = binding.get_host_cpu_features() if free else {}
    return all(features.get(name, False) for name in names)


def unrolled(size, of=0):
    """Return a tuple of this length, which compiled code treats as a constant and is compiled for."""
    return (of,) * size


@intrinsic
def wide_vectors(typing):
    """Ask LLVM, within a loop's function, for the widest vectors; on x86 it uses half of them by default."""

    def generate(context, builder, signature, arguments):
        attributes = builder.function.attributes
        if isinstance(attributes, set):  # its add() refuses attributes of this kind
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate
