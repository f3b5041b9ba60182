"""numpy's npz: a zip of npy files. Members that are stored are mapped, those that are compressed unpacked."""

from __future__ import annotations

import errno
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from gpuzip._core.checks import printable
from gpuzip._core.rows import Matrix
from gpuzip.errors import FormatError
from gpuzip.interop.matrices import npy
from gpuzip.interop.matrices.blocks import Blocks
from gpuzip.interop.matrices.stored import Stored

Array = np.ndarray[Any, Any]

_LOCAL = 30  # bytes of a member's own header, before its name and extra field
_SMALLEST = 1100  # times that deflate can make bytes smaller; more is a lie


def find(path: Path, name: str | None = None) -> Stored:
    """The array of that name, or the only one."""
    with _named(path), zipfile.ZipFile(path) as archive:
        member = _member(path, archive, name)
        with archive.open(member) as file:
            shape, fortran, dtype = npy.header(path, file)
            start = file.tell()
        needed, there = dtype.itemsize * int(np.prod(shape, dtype=object)), member.file_size - start
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NotImplementedError(f"compression {member.compress_type}, which numpy never uses")
        if needed != there or member.file_size > _SMALLEST * (member.compress_size + 1):
            raise FormatError(
                f"{path}: {member.filename} must have {needed:,} bytes of values for shape "
                f"{shape}; it has {there:,}. It is damaged: make it again."
            )
        if member.compress_type == zipfile.ZIP_STORED:
            offset = _begin(path, member) + start
            if offset + needed > path.stat().st_size:
                raise zipfile.BadZipFile(f"{member.filename} ends beyond the file")
            return npy.stored_array(path, offset, shape, fortran, dtype)
    if fortran:  # whose first row ends with the array
        return _unpacked(path, member, shape, dtype)
    each = partial(_each, path, member, start, shape, dtype)
    return Stored(path, shape, dtype.newbyteorder("=").name, each)


def _each(
    path: Path,
    member: zipfile.ZipInfo,
    skip: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    start: int,
    rows: int,
) -> Iterator[Matrix]:
    """Chunks of rows, unpacked one after another. Those before the first are unpacked and dropped."""
    n, d = shape
    with _named(path), zipfile.ZipFile(path) as archive, archive.open(member) as file:
        file.seek(skip + start * d * dtype.itemsize)
        for first in range(start, n, rows):
            yield _values(file, min(rows, n - first) * d, dtype).reshape(-1, d)


def _values(file: IO[bytes], count: int, dtype: np.dtype[Any]) -> Array:
    data = file.read(count * dtype.itemsize)
    return np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)


def _unpacked(path: Path, member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Stored:
    def mapped() -> Matrix:
        with _named(path), zipfile.ZipFile(path) as archive, archive.open(member) as file:
            npy.header(path, file)
            values = _values(file, int(np.prod(shape, dtype=object)), dtype)
        return values.reshape(shape, order="F")

    def each(start: int, rows: int) -> Iterator[Matrix]:
        raise FormatError(
            f"{path}: is compressed column by column, so that no row can be read before all are. "
            "Save it by rows: np.ascontiguousarray(x)."
        )

    return Stored(path, shape, dtype.newbyteorder("=").name, each, mapped=mapped)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What zipfile raises for a damaged file, as FormatError."""
    try:
        yield
    except FormatError:
        raise
    except (
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
        MemoryError,
        zlib.error,
        OSError,
    ) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which a seek before the start is
            raise
        raise FormatError(
            f"{path}: cannot be read as npz ({printable(str(error)):.200}). Restore it, or make it again."
        ) from error


def _member(path: Path, archive: zipfile.ZipFile, name: str | None) -> zipfile.ZipInfo:
    found = {item.filename.removesuffix(".npy"): item for item in archive.infolist()}
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        raise FormatError(
            f"{path}: one of its arrays must be named: {', '.join(sorted(found)[:20])}; got {name!r}."
        )
    return found[name]


def _begin(path: Path, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin."""
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        local = file.read(_LOCAL)
    names = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    return member.header_offset + _LOCAL + names


def write(out: BinaryIO, blocks: Blocks) -> None:
    """One array, `x`, stored without compression, so that it can be mapped."""
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as to,
    ):
        npy.write(to, blocks)  # type: ignore[arg-type]
