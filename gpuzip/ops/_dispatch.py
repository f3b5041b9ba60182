"""Chooses an operator's CPU path: loops compiled by numba if it is installed, else plain torch."""

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
    """Return whether operators on the CPU run compiled loops: numba works and they are not turned off."""
    return _wanted and _numba_works()


@contextmanager
def use_loops(wanted: bool) -> Iterator[None]:
    """Turn compiled loops on or off within the block, for all threads. GPUZIP_LOOPS=0 starts with off."""
    global _wanted
    before, _wanted = _wanted, wanted
    try:
        yield
    finally:
        _wanted = before


@cache
def _numba_works() -> bool:
    """Import numba, at the first call of an operator instead of with gpuzip."""
    if importlib.util.find_spec("numba") is None or os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        return False
    try:
        importlib.import_module("numba")
    except Exception as error:  # ImportError, SystemError or others if numpy or python is too new for it
        warnings.warn(
            f"gpuzip: numba is installed but cannot be imported ({error}). Plain torch runs instead.",
            stacklevel=2,
        )
        return False
    return True


def loops_or(plain: Callable[..., Any], loops: str) -> Callable[..., Any]:
    """Return a function that runs `loops`, a "<module>:<function>", or `plain`. It chooses at every call."""
    module, _, function = loops.partition(":")
    found: Callable[..., Any] | None = None

    def run(*args: Any) -> Any:
        nonlocal found
        if not loops_are_used():
            return plain(*args)
        if found is None:
            found = getattr(importlib.import_module(module), function)
        return found(*args)

    return run


@cache
def loops_of(name: str) -> Any:
    """Return the module gpuzip.loops.<name>, for functions that are no operators, if loops are used."""
    return importlib.import_module(f"gpuzip.loops.{name}")
