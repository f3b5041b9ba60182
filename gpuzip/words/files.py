"""Opens a file of word vectors for reading: plain, compressed, or a pipe."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, BinaryIO

from gpuzip.errors import GpuzipError

_GZIP, _BZIP2, _XZ, _ZIP = b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", (b"PK\x03\x04", b"PK\x05\x06")
_OTHERS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "numpy's",
}
_DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, OSError, RuntimeError)


class Source:
    """A file to read from its start to its end.

    size: bytes of what is read, None if only its end tells. total: bytes of the file, for progress.
    """

    total: int
    size: int | None

    def __init__(self, name: str, raw: BinaryIO, plain: IO[bytes]) -> None:
        status = os.fstat(raw.fileno())
        regular = stat.S_ISREG(status.st_mode)
        self.total = status.st_size if regular else 0
        self.size = self.total if regular and plain is raw else None
        self._name, self._raw, self._plain = name, raw, plain
        self._count = 0

    @property
    def done(self) -> int:
        """Bytes of the file that are read, of `total`."""
        return self._raw.tell() if self.total else self._count

    def read(self, most: int = -1) -> bytes:
        """Read up to `most` bytes, or all; b"" at the end. Raises GpuzipError for damaged compressed data."""
        return self._taken(self._plain.read, most)

    def readline(self, most: int) -> bytes:
        """Read a line, or its first `most` bytes."""
        return self._taken(self._plain.readline, most)

    def _taken(self, read: Callable[[int], bytes], most: int) -> bytes:
        try:
            block = read(most)
        except _DAMAGED as error:
            if self._plain is self._raw:
                raise
            raise GpuzipError(
                f"{self._name}: its compressed data must be whole; got {error}. Fetch the file again."
            ) from error
        self._count += len(block)
        return block


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Source]:
    """Open a file that may be compressed by gzip, bzip2, xz or zip (of one file), or a pipe."""
    with ExitStack() as stack:
        raw = stack.enter_context(open(path, "rb"))
        plain = _unpacked(os.fspath(path), raw)
        if plain is not raw:
            stack.enter_context(plain)
        yield Source(os.fspath(path), raw, plain)


def _unpacked(name: str, raw: IO[bytes]) -> IO[bytes]:
    begin = raw.peek(16)  # type: ignore[attr-defined]
    if begin.startswith(_GZIP):
        return gzip.open(raw)  # type: ignore[return-value]
    if begin.startswith(_BZIP2) and begin[4:10] == b"1AY&SY":
        return bz2.open(raw)
    if begin.startswith(_XZ):
        return lzma.open(raw)
    if begin.startswith(_ZIP):
        return _member(name, raw)
    kind = next((kind for magic, kind in _OTHERS.items() if begin.startswith(magic)), None)
    if kind is not None:
        raise GpuzipError(
            f"{name}: must hold word vectors, plain or compressed by gzip, bzip2, xz or zip; it is of {kind} "
            "format. Convert or decompress it."
        )
    return raw


def _member(name: str, raw: IO[bytes]) -> IO[bytes]:
    """The one file of a zip archive."""
    if not raw.seekable():
        raise GpuzipError(f"{name}: a pipe must not hold a zip archive. Decompress it, as with funzip.")
    try:
        archive = zipfile.ZipFile(raw)
        held = [one.filename for one in archive.infolist() if not one.is_dir()]
        if len(held) == 1:
            return archive.open(held[0])
    except _DAMAGED as error:
        raise GpuzipError(f"{name}: must be a whole zip archive; got {error}. Fetch it again.") from error
    raise GpuzipError(
        f"{name}: must be a zip archive of one file; it has {len(held)}: {', '.join(held)!r:.200}. Unpack it "
        "and name one of them."
    )
