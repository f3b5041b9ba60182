"""Chooses an operator's CPU path: loops compiled by numba if it is installed, else plain torch.

Where both give the same bits, plain torch also answers while a thread compiles the loops.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from gpuzip._core import background
from gpuzip._core.waiting import NotReadyError, Way, if_ready, taking, way

T = TypeVar("T")

_MOST_BYTES = 1 << 22  # of arguments that plain torch takes sooner than they are worth a compiler's seconds

_setting = os.environ.get("GPUZIP_LOOPS", "1")
_wanted, _waits = _setting != "0", _setting == "wait"


def loops_are_used() -> bool:
    """Return whether operators on the CPU run compiled loops: numba works and they are not turned off."""
    return _wanted and way() is not Way.PLAIN and _numba_works()


@contextmanager
def use_loops(wanted: bool) -> Iterator[None]:
    """Turn compiled loops on or off within the block, for all threads. GPUZIP_LOOPS=0 starts with off."""
    global _wanted
    before, _wanted = _wanted, wanted
    try:
        yield
    finally:
        _wanted = before


@contextmanager
def wait_for_loops(wanted: bool) -> Iterator[None]:
    """Let calls wait until loops are compiled, or not, within the block. GPUZIP_LOOPS=wait starts so."""
    global _waits
    before, _waits = _waits, wanted
    try:
        yield
    finally:
        _waits = before


def at_once(key: Hashable, answer: Callable[[], T], rehearsal: Callable[[], Callable[[], object]]) -> T:
    """Return answer(), by loops that are compiled, or by plain torch while a thread compiles them.

    Both ways must give the same bits. key: equal for calls that need the same loops. rehearsal: makes what
    the thread calls, which reads nothing that the caller may change.
    """
    if _waits or way() is not Way.FREE or not loops_are_used() or background.has_failed(key):
        return answer()
    if background.is_waiting(key):
        return _meanwhile(key, answer)
    try:
        return if_ready(answer)
    except NotReadyError:
        with taking(Way.PLAIN):
            found = answer()
        background.start(key, rehearsal())
        return found


def _meanwhile(key: Hashable, answer: Callable[[], T]) -> T:
    if not background.may_go_on(key):
        return answer()
    start = time.perf_counter()
    with taking(Way.PLAIN):
        found = answer()
    background.spend(key, time.perf_counter() - start)
    return found


def unless_compiling(key: Hashable, call: Callable[..., T], *args: Any) -> T | None:
    """Return call(*args), or None while a thread compiles loops for it."""
    if _waits or way() is not Way.FREE or background.has_failed(key):
        return call(*args)
    if not background.is_waiting(key):
        try:
            return if_ready(call, *args)
        except NotReadyError:
            background.start(key, partial(call, *copies(args)))
    return None


def copies(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments, tensors and arrays among them copied."""
    return tuple(_copy(arg) for arg in args)


def _copy(arg: Any) -> Any:
    if isinstance(arg, Tensor):
        return arg.detach().clone()
    return arg.copy() if isinstance(arg, np.ndarray) else arg


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


def loops_or(plain: Callable[..., Any], loops: str, is_exact: bool = False) -> Callable[..., Any]:
    """Return a function that runs `loops`, a "<module>:<function>", or `plain`. It chooses at every call.

    is_exact: both give the same bits, so that small calls need not wait for a compiler.
    """
    module, _, function = loops.partition(":")
    found: Callable[..., Any] | None = None

    def chosen(*args: Any) -> Any:
        nonlocal found
        if not loops_are_used():
            return plain(*args)
        if found is None:
            found = getattr(importlib.import_module(module), function)
        return found(*args)

    def small_at_once(*args: Any) -> Any:
        if not _are_small(args):
            return chosen(*args)
        return at_once(loops, partial(chosen, *args), lambda: partial(chosen, *copies(args)))

    return small_at_once if is_exact else chosen


def _are_small(args: tuple[Any, ...]) -> bool:
    return sum(arg.nbytes for arg in args if isinstance(arg, Tensor)) <= _MOST_BYTES


@cache
def loops_of(name: str) -> Any:
    """Return the module gpuzip.loops.<name>, for functions that are no operators, if loops are used."""
    return importlib.import_module(f"gpuzip.loops.{name}")
