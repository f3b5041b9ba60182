"""numpy's npy: mapped. Arrays of objects, which are pickles, are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpuzip._core.rows import Matrix
from gpuzip.errors import FormatError
from gpuzip.interop.matrices.blocks import Blocks

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read(path: Path, name: str | None = None) -> Matrix:
    """The array, mapped. An npy has one, so that its name is ignored."""
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
    if needed == 0:
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", offset=start, shape=shape, order="F" if fortran else "C")


def header(path: Path, file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype. Raises FormatError for what is no npy and for arrays of objects."""
    try:
        version = np.lib.format.read_magic(file)
        shape, fortran, dtype = _HEADERS[min(version, (2, 0))](file)
    except (ValueError, KeyError, SyntaxError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise FormatError(
            f"{path}: cannot be read as npy ({reason}). Restore it, or make it again."
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
