"""Atomic replacement of a file."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gpuzip.storage.locks import HAS_LOCKS, is_at, lock

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # what a write to an open file raises without a name


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path` to write to, which then replaces `path` atomically.

    A symbolic link stays, and the file that it names is replaced. Mode and owner are those of the file that
    is replaced, or of any new file; until then nobody else may read what is written. On an error or an
    interrupt the new file is removed and `path` is as it was. What a crash leaves is removed by the next
    writer of `path`. Writers of one path wait for each other. An error of a full disk names `path`.
    """
    target = behind_links(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh, held = _begun(target)
    try:
        like = _stat(target) or fresh.stat()
        fresh.chmod(0o600)
        yield fresh
        with open(fresh, "rb+") as file:
            os.fsync(file.fileno())
        take_after(fresh, like)
        os.replace(fresh, target)
    except BaseException as error:
        fresh.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL and error.filename in (None, str(fresh)):
            error.filename = str(path)
        raise
    finally:
        if held is not None:
            os.close(held)
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


def _begun(target: Path) -> tuple[Path, int | None]:
    """A new file beside `target`, and the descriptor that holds its lock, or None where there are no locks.

    Its name follows from the target's, so that the next writer finds what a crash left without a look at
    the other files of the folder. A file of that name whose lock is free has no writer.
    """
    fresh = target.with_name(f".{hashlib.blake2b(os.fsencode(target.name), digest_size=8).hexdigest()}.tmp")
    while HAS_LOCKS and (opened := _opened(fresh)):
        descriptor, is_new = opened
        try:
            is_locked = lock(descriptor)
            is_there = is_at(descriptor, fresh)
            if is_new and (is_there or not is_locked):
                return fresh, descriptor
            if is_locked and is_there:
                fresh.unlink(missing_ok=True)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not is_locked:  # and another writes it, or did
            break
    fresh = target.with_name(f".{secrets.token_hex(8)}.tmp")
    fresh.touch(exist_ok=False)
    return fresh, None


def _opened(fresh: Path) -> tuple[int, bool] | None:
    """A descriptor, and whether it made the file; None for a file that is another user's, or a link."""
    while True:
        try:
            return os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            with suppress(FileNotFoundError):  # gone in the meantime
                try:
                    return os.open(fresh, os.O_RDONLY | os.O_NOFOLLOW), False
                except PermissionError:
                    return None
                except OSError as error:
                    if error.errno == errno.ELOOP:
                        return None
                    raise


def _stat(path: Path) -> os.stat_result | None:
    return path.stat() if path.exists() else None
