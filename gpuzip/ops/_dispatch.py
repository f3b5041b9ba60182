"""An operator's path on the CPU: loops compiled by numba where it is installed, else plain torch."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

_wanted = os.environ.get("GPUZIP_LOOPS", "1") != "0"


def loops_are_used() -> bool:
    """Whether operators on the CPU run their compiled loops: numba works here and nobody said no."""
    return _wanted and _numba_works()


@contextmanager
def use_loops(wanted: bool) -> Iterator[None]:
    """Within the block, compiled loops run or not, in every thread. GPUZIP_LOOPS=0 says no from the start."""
    global _wanted
    before, _wanted = _wanted, wanted
    try:
        yield
    finally:
        _wanted = before


@cache
def _numba_works() -> bool:
    """numba is imported at the first call of an operator, and never when gpuzip is."""
    if importlib.util.find_spec("numba") is None:
        return False
    try:
        importlib.import_module("numba")
    except (
        Exception
    ) as error:  # it raises ImportError, SystemError or others where numpy or python is too new
        warnings.warn(
            f"gpuzip: numba is installed and cannot be used ({error}). Plain torch runs instead.",
            stacklevel=2,
        )
        return False
    return True


def loops_or(plain: Callable[..., Any], loops: str) -> Callable[..., Any]:
    """An implementation that runs `loops`, named "<module>:<function>", or `plain`; chosen at every call."""
    module, _, function = loops.partition(":")

    def run(*args: Any) -> Any:
        if not loops_are_used():
            return plain(*args)
        return getattr(importlib.import_module(module), function)(*args)

    return run
