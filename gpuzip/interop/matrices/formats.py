"""The formats of matrices, one line each, and the two functions that read and write them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gpuzip._core.progress import Progress, reporting
from gpuzip._core.rows import Matrix
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.interop.matrices import arrow, hdf5, npy, npz, parquet, safetensors, vecs
from gpuzip.interop.matrices.blocks import Blocks, blocks_of
from gpuzip.interop.matrices.spool import spooled_stream
from gpuzip.interop.matrices.stored import Stored
from gpuzip.storage.atomic import replacing
from gpuzip.storage.file import local_target
from gpuzip.storage.paths import local_path

Reader = Callable[[Path, str | None], Stored]
Writer = Callable[[BinaryIO, Blocks], None]


@dataclass(frozen=True)
class Format:
    """How to read and write one format.

    Attributes
    ----------
    find : callable
        (path, name) to a matrix that is not read; name: of the array, tensor, column or dataset, where a file
        has several.
    write : callable or None
        (file open for bytes, Blocks); None for a format that is only read.
    magic : bytes
        How its files begin; empty where any bytes may come first.
    """

    find: Reader
    write: Writer | None
    magic: bytes = b""


#: Formats by the suffix of their files. A new format is a file and a line here.
FORMATS: dict[str, Format] = {
    "npy": Format(npy.find, npy.write, b"\x93NUMPY"),
    "npz": Format(npz.find, npz.write, b"PK"),
    "safetensors": Format(safetensors.find, safetensors.write),
    "parquet": Format(parquet.find, parquet.write, b"PAR1"),
    "fvecs": Format(vecs.find_fvecs, vecs.write_fvecs),
    "bvecs": Format(vecs.find_bvecs, vecs.write_bvecs),
    "ivecs": Format(vecs.find_ivecs, None),
    "arrow": Format(arrow.find, None, b"ARROW1"),
    "hdf5": Format(hdf5.find, None, b"\x89HDF"),
}

_ALIASES = {"arrows": "arrow", "feather": "arrow", "h5": "hdf5"}


def is_matrix_file(path: str | os.PathLike[str]) -> bool:
    """Whether the suffix of a path names a format."""
    suffix = Path(path).suffix.removeprefix(".").lower()
    return _ALIASES.get(suffix, suffix) in FORMATS


def format_of(path: str | os.PathLike[str], *, who: str = "format_of") -> str:
    """Return the format that the suffix of a path names.

    Parameters
    ----------
    path : str or path-like
        Name of a file.
    who : str, default "format_of"
        The caller, for the error text.

    Returns
    -------
    str
        A key of `FORMATS`.

    Raises
    ------
    GpuzipError
        If no format has that suffix.
    """
    suffix = Path(path).suffix.removeprefix(".").lower()
    suffix = _ALIASES.get(suffix, suffix)
    if suffix not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise GpuzipError(
            f"{who}: the file must end in one of {known}; got {Path(path).name!r}. Rename it, or name its "
            "format."
        )
    return suffix


def read_matrix(
    path: str | os.PathLike[str] | BinaryIO, *, name: str | None = None, format: str | None = None
) -> Matrix:
    """Read a matrix of a file in bounded memory: mapped where the format allows it.

    Parameters
    ----------
    path : str, path-like or binary file
        File to read. A file that is open, such as sys.stdin.buffer, is copied to a temporary file first.
    name : str, optional
        Name of the array (npz), tensor (safetensors), column (parquet, arrow) or dataset (hdf5). Needed where
        a file has several.
    format : str, optional
        One of `FORMATS`. Default: by the suffix, or for a file that is open by its first bytes.

    Returns
    -------
    (N, D) array or tensor
        The rows, mapped from the file, or from a temporary file of as many bytes as the rows (parquet, arrow,
        hdf5, bvecs, ivecs, compressed npz), which is gone with the result.

    Raises
    ------
    FileNotFoundError, PermissionError
        If there is no such file, or it may not be read.
    FormatError
        If the file is not of this format, is damaged, or has no single matrix.

    Examples
    --------
    >>> import pathlib, tempfile, torch
    >>> from gpuzip.interop.matrices import read_matrix, write_matrix
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "x.fvecs"
    ...     _ = write_matrix(path, torch.eye(3))
    ...     read_matrix(path).shape
    (3, 3)
    """
    who = "read_matrix"
    if not isinstance(path, str | os.PathLike):
        return _read_stream(path, name, format)
    source, known = _regular(who, path, format)
    if not source.is_file():
        with open(source, "rb") as file:
            return _read_stream(file, name, known)
    return _found(source, name, known).matrix()


def find_matrix(
    path: str | os.PathLike[str], *, name: str | None = None, format: str | None = None, who: str
) -> Stored:
    """A matrix of a file, to be read chunk by chunk; arguments and errors are those of `read_matrix`."""
    source, known = _regular(who, path, format)
    if not source.is_file():
        raise GpuzipError(f"{who}: {source} must be a regular file; it is a pipe or device. Copy it to one.")
    return _found(source, name, known)


def _regular(who: str, path: str | os.PathLike[str], format: str | None) -> tuple[Path, str]:
    """The file and its format. Raises for what is not there and for folders."""
    source = local_path(who, path)
    known = format_of(source, who=who) if format is None else _known(who, format)
    if source.is_dir():
        raise IsADirectoryError(f"{who}: {source} must be a file; it is a folder. Name a file of it.")
    if not source.exists():
        raise FileNotFoundError(f"{who}: there is no file {source}. Check the name.")
    return source, known


def _read_stream(file: BinaryIO, name: str | None, format: str | None) -> Matrix:
    with spooled_stream(file) as path:
        with open(path, "rb") as opened:
            first = opened.read(8)
        known = _known("read_matrix", format) if format else _by_magic(first)
        return _found(path, name, known).matrix()


def _by_magic(first: bytes) -> str:
    for name, format in FORMATS.items():
        if format.magic and first.startswith(format.magic):
            return name
    raise FormatError(
        f"read_matrix: the bytes must begin as npy, npz, parquet, arrow or hdf5; got {first!r}. Name the "
        "format."
    )


def _known(who: str, format: str) -> str:
    if format not in FORMATS:
        raise GpuzipError(f"{who}: format must be one of {', '.join(FORMATS)}; got {format!r}.")
    return format


def _found(path: Path, name: str | None, known: str) -> Stored:
    found = FORMATS[known].find(path, name)
    if len(found.shape) != 2:
        raise FormatError(
            f"{path}: must hold a matrix (N, D); it holds shape {found.shape}. Save it reshaped."
        )
    return found


def write_matrix(
    path: str | os.PathLike[str] | BinaryIO,
    x: Any,
    *,
    format: str | None = None,
    progress: Progress = None,
) -> int:
    """Write a matrix, or decoded codes, block by block.

    Parameters
    ----------
    path : str, path-like or binary file
        File to write, replaced as a whole or kept on any error; or a file that is open for writing.
    x : (N, D) float tensor, array, memory map, Codes or MixedCodes
        Rows to write. Codes are decoded as they are written.
    format : str, optional
        One of `FORMATS`. Default: by the suffix; "npy" for a file that is open.
    progress : bool or callable, optional
        True shows a bar. A function is called after every block with the rows done and all rows.

    Returns
    -------
    int
        Bytes written.

    Raises
    ------
    GpuzipError
        If the format cannot be written, or cannot hold these values.

    Examples
    --------
    >>> import io, torch
    >>> from gpuzip.interop.matrices import write_matrix
    >>> write_matrix(io.BytesIO(), torch.eye(4))
    192
    """
    who = "write_matrix"
    if format is not None:
        known = _known(who, format)
    else:
        known = format_of(path, who=who) if isinstance(path, str | os.PathLike) else "npy"
    write = FORMATS[known].write
    if write is None:
        raise GpuzipError(f"{who}: {known} files are only read. Write fvecs, or npy.")
    blocks = blocks_of(who, x)
    with reporting(who, progress, "write", blocks.n) as report:
        told = blocks.told(report)
        target = local_target(path)
        if isinstance(target, Path):
            with replacing(target) as fresh, open(fresh, "wb") as out:
                write(out, told)
            return target.stat().st_size
        counted = _Counted(target)
        write(counted, told)  # type: ignore[arg-type]
        return counted.written


class _Counted:
    """A file that counts what is written to it."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self.written = out, 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        rest = memoryview(data).cast("B") if size else memoryview(b"")
        while len(rest):
            rest = rest[self._out.write(rest) :]
        self.written += size
        return size

    def tell(self) -> int:
        return self.written

    def seekable(self) -> bool:
        return False

    def flush(self) -> None:
        self._out.flush()

    closed = False
