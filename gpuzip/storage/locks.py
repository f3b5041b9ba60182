"""Locks of writers, by flock where the platform has it: the end of a process releases them, a crash too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    HAS_LOCKS = False
else:
    HAS_LOCKS = True


def lock(descriptor: int) -> bool:
    """Wait for the lock of a file or folder; False where its file system has none. Closing it releases it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Make a folder, and hold it against other writers, which wait."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        if not HAS_LOCKS:
            break
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if not lock(descriptor) or is_at(descriptor, folder):
                yield
                return
        finally:
            os.close(descriptor)
    yield
