"""How every loop is compiled: on its first call, without the interpreter lock, kept for later processes."""

import numba


def jit(**options):
    """numba.njit that keeps what it compiled on disk wherever a folder can be written, else in memory."""

    def compiled(function):
        settings = {"nogil": True, "error_model": "numpy"} | options
        try:
            return numba.njit(cache=True, **settings)(function)
        except RuntimeError:  # no folder that could hold it
            return numba.njit(**settings)(function)

    return compiled
