"""numpy's npz: a zip of npy files. Members that are stored are mapped, those that are compressed read."""

from __future__ import annotations

import errno
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpuzip._core.checks import printable
from gpuzip._core.rows import Matrix
from gpuzip.errors import FormatError
from gpuzip.interop.matrices import npy
from gpuzip.interop.matrices.blocks import Blocks

Array = np.ndarray[Any, Any]

_LOCAL = 30  # bytes of a member's own header, before its name and extra field
_SMALLEST = 1100  # times that deflate can make bytes smaller; more is a lie


def read(path: Path, name: str | None = None) -> Matrix:
    """The array of that name, or the only one."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = _member(path, archive, name)
            with archive.open(member) as file:
                shape, fortran, dtype = npy.header(path, file)
                needed, there = (
                    dtype.itemsize * int(np.prod(shape, dtype=object)),
                    member.file_size - file.tell(),
                )
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise NotImplementedError(f"compression {member.compress_type}, which numpy never uses")
                if needed != there or member.file_size > _SMALLEST * (member.compress_size + 1):
                    raise FormatError(
                        f"{path}: {member.filename} must have {needed:,} bytes of values for shape "
                        f"{shape}; it has {there:,}. It is damaged: make it again."
                    )
                if member.compress_type == zipfile.ZIP_STORED:
                    return _mapped(path, member, file.tell(), shape, fortran, dtype)
                values = np.frombuffer(file.read(), dtype)
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
    return values.reshape(shape, order="F" if fortran else "C")


def _member(path: Path, archive: zipfile.ZipFile, name: str | None) -> zipfile.ZipInfo:
    found = {item.filename.removesuffix(".npy"): item for item in archive.infolist()}
    if name is None and len(found) == 1:
        return next(iter(found.values()))
    if name not in found:
        raise FormatError(
            f"{path}: one of its arrays must be named: {', '.join(sorted(found)[:20])}; got {name!r}."
        )
    return found[name]


def _mapped(
    path: Path,
    member: zipfile.ZipInfo,
    start: int,
    shape: tuple[int, ...],
    fortran: bool,
    dtype: np.dtype[Any],
) -> Array:
    with open(path, "rb") as file:
        file.seek(member.header_offset)
        local = file.read(_LOCAL)
    names = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    if 0 in shape:
        return np.empty(shape, dtype)
    offset = member.header_offset + _LOCAL + names + start
    return np.memmap(path, dtype, "r", offset=offset, shape=shape, order="F" if fortran else "C")


def write(out: BinaryIO, blocks: Blocks) -> None:
    """One array, `x`, stored without compression, so that it can be mapped."""
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as to,
    ):
        npy.write(to, blocks)  # type: ignore[arg-type]
