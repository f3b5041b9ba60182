"""Checksums of blocks of rows: codes that are mapped from a file are verified where they are read.

A table holds the CRC-32 of each block of rows in each plane of codes, as little-endian bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.errors import FormatError
from gpuzip.storage import paging

#: Most bytes of all planes in a block, unless one row has more: what the first read of a single row costs.
#: Larger blocks are no faster to check, and the table is less than 1/32768 of the codes per plane.
BLOCK_BYTES = 1 << 18

_TASK = 16  # blocks per task of a thread
_AT_ONCE = 8 << 20, 8  # bytes of blocks that lie together in one range of a remote file; ranges at a time
_CRC = np.dtype("<u4")

Array = np.ndarray[Any, Any]
Run = tuple[int, int, int]  # a plane, and two blocks between which all belong to it

#: Reads ranges of remote planes: (plane, start, stop) each, in bytes of the plane.
Fetch = Callable[[Sequence[Run]], list[bytes]]


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
    path : Path or str
        The file, for messages.
    planes : sequence of (N, B) uint8 tensors
        The codes, mapped or in memory; for a remote file memory that `fetch` fills.
    table : uint8 tensor
        Their table, of `table_shape`.
    block_rows : int
        Rows per block.
    fetch : callable, optional
        Reads bytes of a remote file. A block is then fetched where it would be compared, and is written to
        its plane only if it has its checksum.
    """

    def __init__(
        self,
        path: Path | str,
        planes: Sequence[Tensor],
        table: Tensor,
        block_rows: int,
        fetch: Fetch | None = None,
    ) -> None:
        self._path, self._block_rows, self._n = path, block_rows, len(planes[0])
        self._fetch = fetch
        self._planes = [plane.numpy() for plane in planes]
        self._right: Array = table.numpy().view(_CRC)[:, :, 0]
        self._left: Array = np.ones(self._right.shape, bool)
        self._first = 0

    @property
    def is_remote(self) -> bool:
        """Whether blocks that were not verified are not even there."""
        return self._fetch is not None

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
        if self._left[self._blocks_of(0, self._n)].any():
            return False
        self.read_in_order()
        return True

    def read_in_order(self) -> None:
        """Let the system read ahead: all codes will be read."""
        if self._fetch is None:
            paging.in_order(self._planes)

    def _blocks_of(self, start: int, stop: int) -> Array:
        if start >= stop:
            return np.arange(0)
        first, last = (self._first + row for row in (start, stop - 1))
        return np.arange(first // self._block_rows, last // self._block_rows + 1)

    def _compare(self, todo: Array) -> None:
        """Verify the (block, plane) pairs of an (n, 2) array."""
        if self._fetch is not None:
            self._fetch_all(self._fetch, _runs(todo, [self._bytes_of(plane) for plane in self._planes]))
            return
        self._announce(_runs(todo, [self._bytes_of(plane) for plane in self._planes]))
        good = _checksums(self._planes, todo, self._block_rows) == self._right[todo[:, 0], todo[:, 1]]
        self._left[todo[good, 0], todo[good, 1]] = False
        if not good.all():
            block, plane = todo[~good][0].tolist()
            raise self._damaged(block, plane, "restore it or save it again")

    def _announce(self, runs: Sequence[Run]) -> None:
        """Tell the system which blocks of a mapped file are read next."""
        rows = self._block_rows
        parts = [self._planes[plane][first * rows : stop * rows] for plane, first, stop in runs]
        few = sum(part.nbytes for part in parts) <= _AT_ONCE[0]
        (paging.soon if few else paging.in_order)(parts)

    def _fetch_all(self, fetch: Fetch, runs: Sequence[Run]) -> None:
        at_once = _AT_ONCE[1]
        for some in (runs[at : at + at_once] for at in range(0, len(runs), at_once)):
            size = {plane: self._bytes_of(self._planes[plane]) for plane, _, _ in some}
            spans = [(p, a * size[p], min(b * size[p], self._planes[p].nbytes)) for p, a, b in some]
            for run, data in zip(some, fetch(spans), strict=True):
                self._fill(run, np.frombuffer(data, np.uint8))

    def _fill(self, run: Run, data: Array) -> None:
        """Write fetched blocks to their plane, each if it has its checksum."""
        plane, first, stop = run
        rows = data.reshape(-1, self._planes[plane].shape[1])
        todo = np.stack([np.arange(stop - first), np.zeros(stop - first, np.int64)], 1)
        good = _checksums([rows], todo, self._block_rows) == self._right[first:stop, plane]
        for block in good.nonzero()[0].tolist():
            part = slice(block * self._block_rows, (block + 1) * self._block_rows)
            start = first * self._block_rows
            self._planes[plane][start + part.start : start + part.stop] = rows[part]
        self._left[first:stop, plane][good] = False
        if not good.all():
            block = first + int((~good).argmax())
            raise self._damaged(block, plane, "open it again if it was replaced, or restore it")

    def _bytes_of(self, plane: Array) -> int:
        return self._block_rows * int(plane.shape[1])

    def _damaged(self, block: int, plane: int, advice: str) -> FormatError:
        start, stop = block * self._block_rows, min((block + 1) * self._block_rows, len(self._planes[0]))
        return FormatError(
            f"{self._path}: rows {start} to {stop - 1} of {plane_names(plane + 1)[-1]} do not match their "
            f"checksum. The file is damaged: {advice}."
        )


def _runs(todo: Array, block_bytes: Sequence[int]) -> list[Run]:
    """The (block, plane) pairs as runs of blocks that lie together, none of many bytes."""
    runs: list[Run] = []
    for plane in np.unique(todo[:, 1]).tolist():
        blocks = todo[todo[:, 1] == plane, 0]
        most = max(1, _AT_ONCE[0] // block_bytes[plane])
        for together in np.split(blocks, np.flatnonzero(np.diff(blocks) > 1) + 1):
            first, stop = int(together[0]), int(together[-1]) + 1
            runs += [(plane, at, min(at + most, stop)) for at in range(first, stop, most)]
    return runs


def _checksums(planes: Sequence[Array], todo: Array, block_rows: int) -> Array:
    """CRC-32 of each (block, plane) pair of an (n, 2) array."""

    def some(start: int, stop: int) -> list[int]:
        pairs = todo[start:stop].tolist()
        return [zlib.crc32(planes[p][b * block_rows : (b + 1) * block_rows]) for b, p in pairs]

    found = map_blocks(some, len(todo), _TASK, lone_here=True)
    return np.fromiter(chain.from_iterable(found), _CRC, len(todo))
