"""TEXMEX's fvecs, bvecs and ivecs: per row its number of values as int32, then the values.

Source: http://corpus-texmex.irisa.fr
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpuzip._core.rows import BLOCK_BYTES, Matrix
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.interop.matrices.blocks import Blocks
from gpuzip.interop.matrices.stored import Laid, Stored

Array = np.ndarray[Any, Any]

_COUNT = 4  # bytes of a row's number of values


def find_fvecs(path: Path, name: str | None = None) -> Stored:
    """(N, D) float32."""
    laid = _laid(path, "<f4")

    def mapped() -> Matrix:
        if not laid.shape[0]:
            return np.empty(laid.shape, np.float32)
        raw = np.memmap(path, np.uint8, "r", shape=(laid.shape[0], laid.stride))
        step = max(1, BLOCK_BYTES // laid.stride)
        for start in range(0, len(raw), step):
            _check(path, laid.shape[1], start, raw[start : start + step, :_COUNT])
        return raw[:, _COUNT:].view("<f4")

    return laid.stored(mapped)


def find_bvecs(path: Path, name: str | None = None) -> Stored:
    """(N, D) bytes as float32."""
    return _laid(path, "u1").stored(None, "float32")


def find_ivecs(path: Path, name: str | None = None) -> Stored:
    """(N, D) int32 as float32."""
    return _laid(path, "<i4").stored(None, "float32")


def _laid(path: Path, kind: str) -> Laid:
    """The rows of the file. Raises FormatError unless its size is that of whole rows like the first one."""
    size, width = path.stat().st_size, np.dtype(kind).itemsize
    if size == 0:
        return Laid(path, 0, (0, 0), np.dtype(kind), _COUNT)
    with open(path, "rb") as file:
        d = int.from_bytes(file.read(_COUNT), "little", signed=True)
    row = _COUNT + width * d
    if d <= 0 or size % row:
        raise FormatError(
            f"{path}: must be rows of a number of values and the values; the first has {d} values, which "
            f"does not divide {size:,} bytes. Check the kind of the file."
        )
    return Laid(path, 0, (size // row, d), np.dtype(kind), _COUNT, check=partial(_check, path, d))


def _check(path: Path, d: int, start: int, counts: Array) -> None:
    """Raise FormatError unless rows from `start` on have d values each, as the bytes in front say."""
    found = np.ascontiguousarray(counts).view("<i4")[:, 0]
    wrong = np.flatnonzero(found != d)
    if len(wrong):
        raise FormatError(
            f"{path}: rows must have {d} values each; row {start + int(wrong[0])} has "
            f"{int(found[wrong[0]])}. The file is damaged, or of another kind."
        )


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
