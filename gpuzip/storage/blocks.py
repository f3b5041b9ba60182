"""Checksums of blocks of rows: codes that are mapped from a file are verified where they are read.

A table holds the CRC-32 of each block of rows in each plane of codes, as little-endian bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.errors import FormatError

#: Most bytes of all planes in a block, unless one row has more: what the first read of a single row costs.
#: Larger blocks are no faster to check, and the table is less than 1/32768 of the codes per plane.
BLOCK_BYTES = 1 << 18

_TASK = 16  # blocks per task of a thread
_CRC = np.dtype("<u4")

Array = np.ndarray[Any, Any]


def plane_names(count: int) -> list[str]:
    """Tensor names of `count` planes of codes."""
    return ["codes", *(f"codes.{i}" for i in range(1, count))]


def rows_per_block(row_bytes: int) -> int:
    return max(1, BLOCK_BYTES // row_bytes)


def table_shape(n: int, planes: int, block_rows: int) -> tuple[int, int, int]:
    """Shape of the uint8 table of n rows."""
    return -(-n // block_rows), planes, _CRC.itemsize


def table_bytes(code_bytes: int) -> int:
    """Upper bound for the bytes of a table beyond the 256 that HEADER_BYTES has room for.

    code_bytes: of all planes, which are at most 4. More than half of a block is filled, but for the last one.
    """
    return max(0, 16 * (code_bytes // (BLOCK_BYTES // 2)) + 16 - 256)


def table_of(planes: Sequence[Tensor], block_rows: int) -> Tensor:
    """The table of (N, B) uint8 planes on the CPU."""
    shape = table_shape(len(planes[0]), len(planes), block_rows)
    every = np.argwhere(np.ones(shape[:2], bool))
    found = _checksums([plane.numpy() for plane in planes], every, block_rows)
    return torch.from_numpy(found.view(np.uint8).reshape(shape))


class Unverified:
    """The blocks of a file's codes that were not yet compared with their checksums.

    Parameters
    ----------
    path : Path
        The file, for messages.
    planes : sequence of (N, B) uint8 tensors
        The codes, mapped or in memory.
    table : uint8 tensor
        Their table, of `table_shape`.
    block_rows : int
        Rows per block.
    """

    def __init__(self, path: Path, planes: Sequence[Tensor], table: Tensor, block_rows: int) -> None:
        self._path, self._block_rows, self._n = path, block_rows, len(planes[0])
        self._planes = [plane.numpy() for plane in planes]
        self._right: Array = table.numpy().view(_CRC)[:, :, 0]
        self._left: Array = np.ones(self._right.shape, bool)
        self._first = 0

    def part(self, start: int, stop: int) -> Unverified:
        """The same of rows start to stop. What either verifies, the other does not read again."""
        part = object.__new__(Unverified)
        vars(part).update(vars(self), _first=self._first + start, _n=stop - start)
        return part

    def verify(self, rows: slice | Tensor, planes: Sequence[int] | None = None) -> bool:
        """Verify the blocks of some rows, in some planes or in all.

        rows: a slice of step 1, or int64 ids, within [0, N). Returns True if no block is left; for ids that
        were verified before it does not look. Raises FormatError for a block that does not match, which
        stays unverified.
        """
        if isinstance(rows, slice):
            blocks = self._blocks_of(*rows.indices(self._n)[:2])
        else:
            blocks = (rows.numpy() + self._first) // self._block_rows
        left = self._left[blocks]
        if planes is not None:
            left = left[:, planes]
        if left.any():
            block, plane = left.nonzero()
            named = plane if planes is None else np.asarray(planes)[plane]
            self._compare(np.unique(np.stack([blocks[block], named], 1), axis=0))
        elif not isinstance(rows, slice):
            return False
        return not self._left[self._blocks_of(0, self._n)].any()

    def _blocks_of(self, start: int, stop: int) -> Array:
        if start >= stop:
            return np.arange(0)
        first, last = (self._first + row for row in (start, stop - 1))
        return np.arange(first // self._block_rows, last // self._block_rows + 1)

    def _compare(self, todo: Array) -> None:
        """Verify the (block, plane) pairs of an (n, 2) array."""
        good = _checksums(self._planes, todo, self._block_rows) == self._right[todo[:, 0], todo[:, 1]]
        self._left[todo[good, 0], todo[good, 1]] = False
        if good.all():
            return
        block, plane = todo[~good][0].tolist()
        start, stop = block * self._block_rows, min((block + 1) * self._block_rows, len(self._planes[0]))
        raise FormatError(
            f"{self._path}: rows {start} to {stop - 1} of {plane_names(plane + 1)[-1]} do not match their "
            "checksum. The file is damaged: restore it or save it again."
        )


def _checksums(planes: Sequence[Array], todo: Array, block_rows: int) -> Array:
    """CRC-32 of each (block, plane) pair of an (n, 2) array."""

    def some(start: int, stop: int) -> list[int]:
        pairs = todo[start:stop].tolist()
        return [zlib.crc32(planes[p][b * block_rows : (b + 1) * block_rows]) for b, p in pairs]

    found = map_blocks(some, len(todo), _TASK, lone_here=True)
    return np.fromiter(chain.from_iterable(found), _CRC, len(todo))
