"""TEXMEX's fvecs, bvecs and ivecs: per row its number of values as int32, then the values.

Source: http://corpus-texmex.irisa.fr
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpuzip._core.rows import BLOCK_BYTES, Matrix
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.interop.matrices.blocks import Blocks
from gpuzip.interop.matrices.spool import spooled_rows

Array = np.ndarray[Any, Any]

_COUNT = 4  # bytes of a row's number of values


def read_fvecs(path: Path, name: str | None = None) -> Matrix:
    """(N, D) float32, mapped."""
    raw = _rows(path, 4)
    return raw[:, _COUNT:].view("<f4") if raw.size else np.empty(_shape(raw, 4), np.float32)


def read_bvecs(path: Path, name: str | None = None) -> Matrix:
    """(N, D) bytes as float32, in a temporary file that is mapped."""
    return _converted(_rows(path, 1), "u1")


def read_ivecs(path: Path, name: str | None = None) -> Matrix:
    """(N, D) int32 as float32, in a temporary file that is mapped."""
    return _converted(_rows(path, 4), "<i4")


def _rows(path: Path, width: int) -> Array:
    """(N, bytes per row) of the file, mapped. Raises FormatError unless all rows have as many values."""
    size = path.stat().st_size
    if size == 0:
        return np.empty((0, _COUNT), np.uint8)
    with open(path, "rb") as file:
        d = int.from_bytes(file.read(_COUNT), "little", signed=True)
    row = _COUNT + width * d
    if d <= 0 or size % row:
        raise FormatError(
            f"{path}: must be rows of a number of values and the values; the first has {d} values, which "
            f"does not divide {size:,} bytes. Check the kind of the file."
        )
    raw = np.memmap(path, np.uint8, "r", shape=(size // row, row))
    step = max(1, BLOCK_BYTES // row)
    for start in range(0, len(raw), step):
        counts = np.ascontiguousarray(raw[start : start + step, :_COUNT]).view("<i4")[:, 0]
        wrong = np.flatnonzero(counts != d)
        if len(wrong):
            raise FormatError(
                f"{path}: rows must have {d} values each; row {start + int(wrong[0])} has "
                f"{int(counts[wrong[0]])}. The file is damaged, or of another kind."
            )
    return raw


def _shape(raw: Array, width: int) -> tuple[int, int]:
    return len(raw), (raw.shape[1] - _COUNT) // width


def _converted(raw: Array, kind: str) -> Array:
    width = np.dtype(kind).itemsize
    step = max(1, BLOCK_BYTES // max(1, raw.shape[1]))
    blocks = (np.ascontiguousarray(raw[i : i + step, _COUNT:]).view(kind) for i in range(0, len(raw), step))
    return spooled_rows(blocks, _shape(raw, width)[1])


def write_fvecs(out: BinaryIO, blocks: Blocks) -> None:
    """Values as float32."""
    _write(out, blocks.d, (block.astype("<f4") for block in blocks.arrays()))


def write_bvecs(out: BinaryIO, blocks: Blocks) -> None:
    """Values as bytes. Raises GpuzipError for what is no whole number from 0 to 255."""
    _write(out, blocks.d, (_as_bytes(block) for block in blocks.arrays()))


def _as_bytes(block: Array) -> Array:
    values = block.astype(np.uint8)
    if not np.array_equal(values.astype(block.dtype), block):
        raise GpuzipError(
            "write_matrix: x must hold whole numbers from 0 to 255 for bvecs; got others. Write fvecs."
        )
    return values


def _write(out: BinaryIO, d: int, blocks: Iterator[Array]) -> None:
    count = np.frombuffer(np.int32(d).astype("<i4").tobytes(), np.uint8)
    for block in blocks:
        row = block.view(np.uint8).reshape(len(block), -1)
        out.write(np.hstack([np.broadcast_to(count, (len(block), _COUNT)), row]).tobytes())
