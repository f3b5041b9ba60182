"""A thread that compiles loops, by the calls that wanted them, while plain torch answers these.

It ends with its work. Before a fork, and when the main thread ends, it stops at the next `check`, so that
no lock stays held and no compiler runs while the process exits: within about a second.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Hashable

from gpuzip._core.waiting import Way, taking, way

_MOST = 16  # calls that wait for the thread
_TRIES = 3  # after which a caller had better wait itself
_PATIENCE = 1.0  # seconds of work without loops, which slows the thread down, before a caller waits

_lock = threading.Condition()
_todo: dict[Hashable, Callable[[], object]] = {}
_begun: Counter[Hashable] = Counter()
_spent: dict[Hashable, float] = {}
_thread: threading.Thread | None = None
_stops = False


class _Stopped(BaseException):
    """Ends the thread's work; no handler of errors must catch it."""


def start(key: Hashable, work: Callable[[], object]) -> None:
    """Call `work` in the thread, unless a call with this key waits for it or too many do."""
    global _thread
    with _lock:
        if _is_ending() or key in _todo or len(_todo) >= _MOST:
            return
        _todo[key] = work
        _begun[key] += 1
        if _thread is None:
            _thread = threading.Thread(target=_run, name="gpuzip compiler")
            try:
                _thread.start()
            except RuntimeError:  # no thread can be had, as while the interpreter ends
                _thread = None
                _forget_all()


def is_waiting(key: Hashable) -> bool:
    """Return whether work with this key is not done yet."""
    return key in _todo


def spend(key: Hashable, seconds: float) -> None:
    """Count seconds that a caller worked while work with this key was not done."""
    _spent[key] = _spent.get(key, 0.0) + seconds


def may_go_on(key: Hashable) -> bool:
    """Return whether a caller does well to work meanwhile. If not, wait until the work with this key is done.

    So many calls in a row take no longer than twice what they take if the first one waits.
    """
    if _spent.get(key, 0.0) < _PATIENCE:
        return True
    with _lock:
        _lock.wait_for(lambda: key not in _todo)
    return False


def is_at_work() -> bool:
    """Return whether the thread may hold the compiler's lock."""
    return bool(_todo)


def has_failed(key: Hashable) -> bool:
    """Return whether work with this key was done so often that doing it again is of no use."""
    return _begun[key] >= _TRIES and key not in _todo


def check() -> None:
    """End the work of the thread, if this is part of it, where it must stop."""
    if way() is Way.REHEARSED and _is_ending():
        raise _Stopped


def join(timeout: float | None = None) -> bool:
    """Wait until all work is done, and return whether it is."""
    thread = _thread
    if thread is not None and thread is not threading.current_thread():
        thread.join(timeout)
        return not thread.is_alive()
    return True


def _is_ending() -> bool:
    return _stops or not threading.main_thread().is_alive()


def _run() -> None:
    global _thread
    with taking(Way.REHEARSED):
        while True:
            with _lock:
                if _is_ending() or not _todo:
                    _thread = None
                    _forget_all()
                    return
                key, work = next(iter(_todo.items()))
            try:
                work()
            except _Stopped:
                continue
            except Exception:  # a caller that needs the loops will see it
                logging.getLogger("gpuzip").debug("gpuzip: loops were not compiled ahead.", exc_info=True)
            with _lock:
                _todo.pop(key, None)
                _lock.notify_all()


def _forget_all() -> None:
    _todo.clear()
    _lock.notify_all()


def _before_fork() -> None:
    global _stops
    _stops = True
    join()


def _after_fork() -> None:
    global _stops
    _stops = False


def _in_child() -> None:
    global _lock, _thread
    _lock, _thread = threading.Condition(), None
    _todo.clear()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
