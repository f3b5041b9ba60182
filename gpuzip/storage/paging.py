"""What a system reads of a mapped file around a byte that is touched: by default, up to megabytes."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_AS_USUAL, _AT_RANDOM, _SOON = 0, 1, 3  # madvise of Linux and of macOS


def touched_alone(arrays: Iterable[Array]) -> None:
    """Ask the system to read only the pages of these arrays that are touched."""
    _advise(arrays, _AT_RANDOM)


def soon(arrays: Iterable[Array]) -> None:
    """Ask the system to read all pages of these arrays now, in few large reads."""
    _advise(arrays, _SOON)


def in_order(arrays: Iterable[Array]) -> None:
    """Ask the system to read ahead of what is touched, which is its default."""
    _advise(arrays, _AS_USUAL)


def _advise(arrays: Iterable[Array], advice: int) -> None:
    if (call := _madvise()) is None:
        return
    for array in arrays:
        start = array.ctypes.data // mmap.PAGESIZE * mmap.PAGESIZE
        if array.nbytes:  # advice: where it fails, pages are read as ever
            call(start, array.ctypes.data + array.nbytes - start, advice)


@cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The system's function, or None."""
    call = None if sys.platform == "win32" else getattr(ctypes.CDLL(None), "madvise", None)
    if call is not None:
        call.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return call
