"""Which way a call takes where loops are not compiled yet: wait, take plain torch, or give up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


class Way(Enum):
    """What a call does about loops. `map_blocks` hands it on to its threads."""

    FREE = "whatever its caller did not decide"
    REHEARSED = "compile, in the thread that does so while others answer"
    READY = "run those that are compiled, and raise NotReadyError where one is not"
    PLAIN = "run none"


class NotReadyError(Exception):
    """A loop must be compiled first, and the caller does not wait for it."""


_way: ContextVar[Way] = ContextVar("gpuzip way", default=Way.FREE)

#: Return the way of the call that runs.
way: Callable[[], Way] = _way.get


@contextmanager
def taking(one: Way) -> Iterator[None]:
    """Take this way within the block."""
    token = _way.set(one)
    try:
        yield
    finally:
        _way.reset(token)


def if_ready(call: Callable[..., T], *args: Any) -> T:
    """Return call(*args); raise NotReadyError where a loop that it needs is not compiled."""
    token = _way.set(Way.READY)
    try:
        return call(*args)
    finally:
        _way.reset(token)
