"""Atomic replacement of a file."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path` to write to, which then replaces `path` atomically.

    A symbolic link stays, and the file that it names is replaced. Mode and owner are those of the file that
    is replaced, or of any new file; until then nobody else may read what is written. On an error or an
    interrupt the new file is removed and `path` is as it was.
    """
    target = behind_links(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{secrets.token_hex(8)}.tmp")
    fresh.touch(exist_ok=False)
    try:
        like = _stat(target) or fresh.stat()
        fresh.chmod(0o600)
        yield fresh
        take_after(fresh, like)
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())
        os.replace(fresh, target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def behind_links(path: Path) -> Path:
    """Where links lead, whether or not there is a file yet. Raises OSError for links that lead nowhere."""
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


def take_after(path: Path, like: os.stat_result) -> None:
    """Give a file the owner, where this process may, and the mode of another."""
    if hasattr(os, "chown"):
        with suppress(OSError):
            os.chown(path, like.st_uid, like.st_gid)
    path.chmod(like.st_mode & 0o777)


def _stat(path: Path) -> os.stat_result | None:
    return path.stat() if path.exists() else None


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk where the system can."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    with suppress(OSError):  # not every file system can, and the file is already in place
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
