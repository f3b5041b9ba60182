"""Atomic replacement of a file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file beside `path` to write to; on success it is flushed to disk and takes path's place.

    On an error or an interrupt the new file is removed and `path` is as it was. The mode is that of
    any new file, also when the writer puts a private one in its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{secrets.token_hex(8)}.tmp")
    fresh.touch(exist_ok=False)
    try:
        mode = fresh.stat().st_mode
        yield fresh
        fresh.chmod(mode)
        with open(fresh, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    if os.name != "posix":  # a folder cannot be opened elsewhere
        return
    with suppress(OSError):  # not every file system syncs folders, and the file is in its place
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
