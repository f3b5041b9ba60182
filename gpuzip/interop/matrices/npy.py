"""numpy's npy. Arrays of objects, which are pickles, are refused."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np

from gpuzip._core.checks import printable
from gpuzip._core.rows import Matrix
from gpuzip.errors import FormatError
from gpuzip.interop.matrices.blocks import Blocks
from gpuzip.interop.matrices.stored import Laid, Stored, by_columns

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MOST = 1 << 16  # bytes of a header; numpy writes 128, and reads all that a header says before it looks
_UNREADABLE = (ValueError, KeyError, SyntaxError, TypeError, RecursionError, MemoryError, TokenError)


def find(path: Path, name: str | None = None) -> Stored:
    """The array. An npy has one, so that its name is ignored."""
    with open(path, "rb") as file:
        shape, fortran, dtype = header(path, file)
        start = file.tell()
        needed = dtype.itemsize * int(np.prod(shape, dtype=object))
        there = path.stat().st_size - start
    if needed > there:
        raise FormatError(
            f"{path}: must have {needed:,} bytes of values for shape {shape}; it has {there:,}. It was cut "
            "off: copy it again."
        )
    return stored_array(path, start, shape, fortran, dtype)


def stored_array(
    path: Path, start: int, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]
) -> Stored:
    """Values that lie in a file as numpy writes them, from a byte on."""

    def mapped() -> Matrix:
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", offset=start, shape=shape, order="F" if fortran else "C")

    if fortran and len(shape) == 2:
        return replace(by_columns(path, start, shape, dtype), mapped=mapped)
    return Laid(path, start, shape, dtype).stored(mapped)


def header(path: Path, file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype. Raises FormatError for what is no npy and for arrays of objects."""
    try:
        version = np.lib.format.read_magic(file)
        counted = file.read(2 if version == (1, 0) else 4)
        size = int.from_bytes(counted, "little")
        if version > (3, 0):
            raise ValueError(f"version {version} is newer than numpy's")
        if size > _MOST:
            raise ValueError(f"its header says that it has {size} bytes")
        shape, fortran, dtype = _HEADERS[min(version, (2, 0))](BytesIO(counted + file.read(size)))
        whole = all(type(length) is int and 0 <= length < 1 << 63 for length in shape)
        if not whole or len(shape) > 32 or not dtype.itemsize:
            raise ValueError(f"shape {shape} of {dtype} is none")
    except _UNREADABLE as error:
        reason = printable(str(error).split("\n")[0]) or type(error).__name__
        raise FormatError(
            f"{path}: cannot be read as npy ({reason:.200}). Restore it, or make it again."
        ) from error
    if dtype.hasobject:
        raise FormatError(
            f"{path}: is a pickle of Python objects, and reading a pickle can run code. Save it as numbers: "
            "np.save(path, np.stack(x).astype('float32'))."
        )
    return shape, fortran, dtype


def write(out: BinaryIO, blocks: Blocks) -> None:
    """The header, then the values of each block."""
    described = np.lib.format.dtype_to_descr(blocks.numpy_dtype)
    np.lib.format.write_array_header_1_0(
        out, {"descr": described, "fortran_order": False, "shape": (blocks.n, blocks.d)}
    )
    for block in blocks.arrays():
        out.write(block.data if block.size else b"")
