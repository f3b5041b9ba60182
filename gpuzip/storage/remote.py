"""Files behind a URL, by fsspec: read by ranges of bytes, and replaced as a whole."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gpuzip._core.checks import printable
from gpuzip._core.extras import needs
from gpuzip.errors import GpuzipError, MissingDependencyError

_CHAIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+:/")  # a drive is one character
_SECRET = re.compile(r"(?<=://)[^/@]*@|\?.*")
#: Filesystems whose objects appear whole when an upload ends: there a move would be a second upload.
_OF_OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "hf", "oci", "oss", "r2"}


def is_url(path: Any) -> bool:
    """Whether this is a URL of fsspec's, also one in a pathlib.Path, which halves its slashes."""
    return isinstance(path, str | os.PathLike) and _CHAIN.match(os.fsdecode(path)) is not None


@dataclass(frozen=True)
class Remote:
    """A file of a filesystem of fsspec.

    Attributes
    ----------
    fs : fsspec.AbstractFileSystem
        The filesystem.
    path : str
        The file's name in it.
    name : str
        The URL for messages, without user, password and query.
    """

    fs: Any
    path: str
    name: str

    def check_writable(self) -> None:
        """Raise GpuzipError for http, which is only read."""
        if _is_http(self.fs):
            raise GpuzipError(f"save: {self.name} must be a URL to write to; http is only read.")

    def size(self) -> int:
        """Its bytes, after a check that ranges of them can be read. Raises OSError."""
        with _reached(self.name):
            found = self._info()
            if found.get("type") == "directory":
                raise IsADirectoryError(
                    f"open: {self.name} must be a file; it is a folder. Copy the folder to this computer."
                )
            size = found.get("size")
            if type(size) is not int or size < 0:
                raise OSError(f"{self.name}: its server must say how long it is. {_ADVICE}")
            if not found.get("partial", True):
                raise OSError(_no_ranges(self.name))
            if size and _is_http(self.fs):
                self._probe(size)
        return size

    def ranges(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of some ranges (start, stop), concurrently where the filesystem can.

        Raises OSError where the filesystem does, and for a range of another length.
        """
        spans = [*spans]
        wanted = [span for span in spans if span[0] < span[1]]
        with _reached(self.name):
            found = self._one_by_one(wanted) if _has_files_alone(self.fs) else self._at_once(wanted)
        for (start, stop), data in zip(wanted, found, strict=True):
            if not isinstance(data, bytes) or len(data) != stop - start:
                got = len(data) if isinstance(data, bytes) else repr(data)[:200]
                raise OSError(
                    f"{self.name}: bytes {start} to {stop - 1} must be {stop - start}; the server sent "
                    f"{got}. The file was replaced, or its server does not serve ranges: open it again."
                )
        data_of = dict(zip(wanted, found, strict=True))
        return [data_of.get(span, b"") for span in spans]

    def _at_once(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        starts, stops = [start for start, _ in spans], [stop for _, stop in spans]
        found: list[bytes] = self.fs.cat_ranges([self.path] * len(spans), starts, stops, on_error="raise")
        return found

    def _one_by_one(self, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        """From an open file without a cache, which would read megabytes for each range."""
        try:
            file = self.fs.open(self.path, "rb", cache_type="none")
        except TypeError:  # its files have no such setting
            file = self.fs.open(self.path, "rb")
        found = []
        with file:
            for start, stop in spans:
                file.seek(start)
                found.append(file.read(stop - start))
        return found

    def _info(self) -> dict[str, Any]:
        try:
            self.fs.invalidate_cache(self.fs._parent(self.path))  # a listing may be older than the file
            found: dict[str, Any] = self.fs.info(self.path)
        except FileNotFoundError as error:
            cause = error.__cause__  # fsspec's http says so whatever went wrong
            if cause is None or getattr(cause, "status", None) in (404, 410):
                raise FileNotFoundError(f"open: there is no file {self.name}.") from error
            raise cause from None
        return found

    def _probe(self, size: int) -> None:
        """Read the last byte. An open file stops there before a server without ranges sends all others."""
        try:
            with self.fs.open(self.path, "rb", size=size, cache_type="none") as file:
                file.seek(size - 1)
                found = len(file.read(1))
        except ValueError as error:
            raise OSError(_no_ranges(self.name)) from error
        if found != 1:
            raise OSError(f"{self.name}: must have {size} bytes, as its server says; it has fewer.")


def remote(who: str, path: Any) -> Remote | Path | None:
    """The file behind a URL, a path for a file:// URL, or None for what is no URL.

    Raises MissingDependencyError for a package of the filesystem's, GpuzipError for an unknown one.
    """
    if not is_url(path):
        return None
    text = os.fsdecode(path)
    slashes = ":///" if text.startswith("file:") else "://"
    text = re.sub(r":/(?!/)", slashes, text, count=1)
    name = printable(_SECRET.sub("", text))
    try:
        with needs("fsspec", "remote"):
            import fsspec
        fs, inner = fsspec.core.url_to_fs(text)
    except MissingDependencyError as error:
        raise MissingDependencyError(f"{who}: {name} is a URL, and {error}") from error
    except ImportError as error:
        raise MissingDependencyError(f"{who}: {name} cannot be reached: {error}") from error
    except ValueError as error:
        raise GpuzipError(f"{who}: {name} must be a URL that fsspec knows; {error}.") from error
    if "file" in _protocols(fs):
        return Path(inner)
    return Remote(fs, inner, name)


@contextmanager
def replacing_remote(target: Remote) -> Iterator[BinaryIO]:
    """Yield a temporary file of this computer, which then replaces the remote one.

    It is uploaded when it is complete: to the target itself in object stores, whose objects appear whole
    when an upload ends; elsewhere beside the target, and then moved. What is interrupted leaves the target
    as it was, unless the filesystem's move itself is interrupted. Raises OSError and GpuzipError.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, "upload")
        with open(local, "wb") as out:
            yield out
        with _reached(target.name):
            _upload(target, local)


def _upload(target: Remote, local: Path) -> None:
    if _protocols(target.fs) & _OF_OBJECTS:
        _put_object(target.fs, local, target.path)
        return
    if target.fs.isdir(target.path):
        raise IsADirectoryError(f"save: {target.name} must be a file; it is a folder. Add a file name.")
    parent = target.fs._parent(target.path)
    fresh = f"{parent.rstrip('/')}/.{secrets.token_hex(8)}.tmp"
    target.fs.makedirs(parent, exist_ok=True)
    try:
        target.fs.put_file(str(local), fresh)
        target.fs.mv(fresh, target.path)
    except BaseException:
        with suppress(Exception):
            target.fs.rm_file(fresh)
        raise


def _put_object(fs: Any, local: Path, path: str) -> None:
    """Upload a file as one object. An open file of fsspec uploads what it has when an error closes it."""
    if not _is_base(fs, "put_file"):
        fs.put_file(str(local), path)
        return
    file = fs.open(path, "wb")
    try:
        with open(local, "rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
    except BaseException:
        file.closed = True
        raise
    file.close()


def _has_files_alone(fs: Any) -> bool:
    """Whether a filesystem reads ranges by opening files."""
    return _is_base(fs, "cat_file") and _is_base(fs, "cat_ranges")


def _is_base(fs: Any, method: str) -> bool:
    from fsspec import AbstractFileSystem

    return getattr(getattr(fs, method), "__func__", None) is getattr(AbstractFileSystem, method)


@contextmanager
def _reached(name: str) -> Iterator[None]:
    """Errors of the system and timeouts pass; what a filesystem raises beside them becomes an OSError."""
    import asyncio

    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        if name in str(error) or error.filename is not None:
            raise
        raise type(error)(f"{name}: {printable(str(error)):.200}") from error  # s3fs names no object
    except (OSError, GpuzipError, asyncio.TimeoutError):
        raise
    except NotImplementedError as error:
        raise GpuzipError(f"{name}: its filesystem must read ranges, or write; it cannot.") from error
    except Exception as error:
        status = getattr(error, "status", "")  # texts of aiohttp hold the whole URL, with what is secret
        reason = f"{type(error).__name__} {status}" if status else printable(repr(error))
        raise OSError(f"{name}: cannot be reached ({reason:.200}).") from error


_ADVICE = "Download the file, or pass a file that fsspec.open has opened: it is read whole."


def _no_ranges(name: str) -> str:
    return f"{name}: its server must serve ranges of bytes; it sends whole files. {_ADVICE}"


def _is_http(fs: Any) -> bool:
    return bool(_protocols(fs) & {"http", "https"})


def _protocols(fs: Any) -> set[str]:
    return {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
