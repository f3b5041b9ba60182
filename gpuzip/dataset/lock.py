"""Locks of a dataset: one writer at a time, and files that stay as long as somebody may read them."""

from __future__ import annotations

import errno
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpuzip.errors import GpuzipError
from gpuzip.storage.locks import HAS_LOCKS, is_at

if HAS_LOCKS:
    import fcntl

_PAUSE = 0.01  # seconds between two tries
_HELD = (errno.EAGAIN, errno.EACCES)  # another has the lock; other errors say that there are no locks


@contextmanager
def writing(who: str, folder: Path, timeout: float) -> Iterator[None]:
    """Hold a folder against other writers, also those of this process. A crash releases it.

    Waits up to `timeout` seconds, then raises GpuzipError. Without flock nothing is held.
    """
    if not HAS_LOCKS:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        stop = time.monotonic() + timeout
        while not _locked(descriptor):
            if time.monotonic() >= stop:
                raise GpuzipError(
                    f"{who}: {folder} must have one writer at a time; another process or thread still writes "
                    f"after {timeout:g} seconds. Try again, or open the dataset with a longer timeout."
                )
            time.sleep(_PAUSE)
        yield
    finally:
        with suppress(OSError):  # a process that was forked meanwhile has the descriptor, too
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True


class Held:
    """A lock that readers share, released when the object is freed."""

    def __init__(self, descriptor: int) -> None:
        weakref.finalize(self, os.close, descriptor)


def hold(path: Path) -> Held | None:
    """Share the lock of a file; None if there is no such file (any more)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    try:
        if HAS_LOCKS:
            _share(descriptor)
        if is_at(descriptor, path):
            return Held(os.dup(descriptor))
        return None
    finally:
        os.close(descriptor)


def _share(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError as error:
        if error.errno in _HELD:
            raise


def remove_unless_held(path: Path) -> bool:
    """Remove a file whose lock nobody shares; False if somebody does, or might where there are no locks."""
    if not HAS_LOCKS:
        return False
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
