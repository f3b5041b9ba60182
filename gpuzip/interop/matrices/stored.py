"""A matrix in a file as what can be read of it: chunks of rows in order, and some rows by their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from gpuzip._core.rows import Matrix
from gpuzip.errors import FormatError
from gpuzip.interop.matrices.spool import spooled_rows

Array = np.ndarray[Any, Any]

_GAP = 1 << 16  # bytes between two rows that are read in one go
_RUN = 8 << 20  # bytes of one go


@dataclass(frozen=True)
class Stored:
    """A matrix in a file. Nothing of it is in memory.

    Attributes
    ----------
    path : Path
        The file.
    shape : tuple of int
        As the file says; (N, D) unless it is no matrix.
    dtype : str
        Name of the dtype of the chunks.
    each : callable
        (first row, rows at most) to chunks of that many rows or fewer, in order, in memory of their own.
    rows : callable, optional
        Rising row numbers to these rows. None where only a pass over the file finds them.
    mapped : callable, optional
        All rows, mapped from the file. None where they cannot be.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    each: Callable[[int, int], Iterator[Matrix]]
    rows: Callable[[Array], Matrix] | None = None
    mapped: Callable[[], Matrix] | None = None

    def matrix(self) -> Matrix:
        """All rows: mapped from the file, or from a temporary file."""
        if self.mapped is not None:
            return self.mapped()
        d = self.shape[1]
        step = max(1, _RUN // (8 * max(1, d)))
        return spooled_rows((np.asarray(block) for block in self.each(0, step)), d, np.dtype(self.dtype))


@dataclass(frozen=True)
class Laid:
    """Rows of equal bytes at equal distances in a file.

    Attributes
    ----------
    path : Path
        The file.
    offset : int
        Where the first row begins.
    shape : tuple of int
        (N, D), or the shape of what is no matrix.
    kind : numpy dtype
        That of the values.
    skip : int
        Bytes in front of the values of each row.
    bfloat16 : bool
        Whether the values, 16-bit numbers for numpy, are bfloat16.
    check : callable, optional
        Called with the number of the first row and the (n, skip) bytes in front of rows that were read.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    kind: np.dtype[Any]
    skip: int = 0
    bfloat16: bool = False
    check: Callable[[int, Array], None] | None = field(default=None, repr=False)

    @property
    def stride(self) -> int:
        """Bytes from one row to the next."""
        return self.skip + self.kind.itemsize * self.shape[1]

    def stored(self, mapped: Callable[[], Matrix] | None, dtype: str | None = None) -> Stored:
        """These rows. dtype: of the chunks; default: the values' own."""
        own = "bfloat16" if self.bfloat16 else self.kind.newbyteorder("=").name
        found = Stored(self.path, self.shape, dtype or own, self._each, self._rows, mapped)
        if dtype in (None, own):
            return found
        return replace(
            found,
            each=lambda start, rows: (np.asarray(some).astype(dtype) for some in self._each(start, rows)),
            rows=lambda ids: np.asarray(self._rows(ids)).astype(dtype),
        )

    def _each(self, start: int, rows: int) -> Iterator[Matrix]:
        with open(self.path, "rb", buffering=0) as file:
            for first in range(start, self.shape[0], rows):
                yield self._read(file, first, min(first + rows, self.shape[0]))

    def _rows(self, ids: Array) -> Matrix:
        """Rows that lie together are read in one go, with what lies between them."""
        parts: list[Any] = []
        ids = np.asarray(ids, np.int64)
        far = np.flatnonzero(np.diff(ids) * self.stride > _GAP) + 1
        most = max(1, _RUN // max(1, self.stride))
        with open(self.path, "rb", buffering=0) as file:
            for run in np.split(ids, far):
                for near in np.split(run, np.flatnonzero(np.diff((run - run[:1]) // most)) + 1):
                    if len(near):
                        found = self._read(file, int(near[0]), int(near[-1]) + 1)
                        parts.append(found[near - near[0]])
        if not parts:
            return np.empty((0, self.shape[1]), self.kind)
        return torch.cat(parts) if self.bfloat16 else np.concatenate(parts)

    def _read(self, file: Any, start: int, stop: int) -> Matrix:
        raw = read_exactly(self.path, file, self.offset + start * self.stride, (stop - start) * self.stride)
        table = raw.reshape(stop - start, self.stride)
        if self.check is not None:
            self.check(start, table[:, : self.skip])
        values = np.ascontiguousarray(table[:, self.skip :]).view(self.kind)
        values = values.astype(self.kind.newbyteorder("="), copy=False)
        return torch.from_numpy(values).view(torch.bfloat16) if self.bfloat16 else values


def by_columns(path: Path, offset: int, shape: tuple[int, ...], kind: np.dtype[Any]) -> Stored:
    """Rows of a matrix that lies column by column: every chunk takes a read per column."""

    def each(start: int, rows: int) -> Iterator[Matrix]:
        n, d = shape
        with open(path, "rb", buffering=0) as file:
            for first in range(start, n, rows):
                count = min(rows, n - first)
                out = np.empty((count, d), kind.newbyteorder("="))
                for column in range(d):
                    at = offset + (column * n + first) * kind.itemsize
                    out[:, column] = read_exactly(path, file, at, count * kind.itemsize).view(kind)
                yield out

    return Stored(path, shape, kind.newbyteorder("=").name, each)


def read_exactly(path: Path, file: BinaryIO, offset: int, size: int) -> Array:
    """(size,) bytes of a file. Raises FormatError where it has become shorter."""
    file.seek(offset)
    found = np.fromfile(file, np.uint8, size) if size else np.empty(0, np.uint8)
    if len(found) < size:
        raise FormatError(f"{path}: ends before its last row, and did not before. Do not write it meanwhile.")
    return found
