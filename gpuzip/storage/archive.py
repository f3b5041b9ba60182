"""Archives in .ezip files: rows of varying length, in blocks.

Tensors: `stream` (bytes,) uint8, the blocks one after another; `blocks` (blocks, 8) uint8, the length and
the CRC-32 of each as little-endian 32-bit numbers; `model` (bytes,) uint8, what the codec learned; and, where
some rows are stored as they were, `kept` (P, D) float32, or (P, 8 * D) uint8, the bytes of float64, where
that is the source's dtype; and `kept_ids` (P, 8) uint8, their 64-bit numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip.errors import FormatError
from gpuzip.storage import paging
from gpuzip.storage.blocks import Fetch

STREAM, BLOCKS, MODEL, KEPT, KEPT_IDS = "stream", "blocks", "model", "kept", "kept_ids"
_ALWAYS = {STREAM, BLOCKS, MODEL}
_OF_KEPT = {KEPT, KEPT_IDS}
_PAIR = np.dtype("<u4")
_ID = np.dtype("<i8")
#: Rows of a block, at most: those of a file that lies are decoded before they are refused.
LARGEST_BLOCK = 1 << 16
_AT_ONCE = 8  # blocks that are fetched together


@dataclass(frozen=True)
class Blocks:
    """Blocks of a stream.

    Attributes
    ----------
    stream : (bytes,) uint8 tensor
    ends : (blocks,) int64 tensor
        Where each block ends.
    rows : int
        Rows per block; the last one may have fewer.
    """

    stream: Tensor
    ends: Tensor
    rows: int

    @property
    def spans(self) -> Tensor:
        """(blocks, 2) int64: the first byte of each block, and the one after its last."""
        return torch.stack([torch.nn.functional.pad(self.ends, (1, 0))[:-1], self.ends], 1)

    def __len__(self) -> int:
        return len(self.ends)


@dataclass(frozen=True)
class Kept:
    """Rows that are stored as they were.

    Attributes
    ----------
    ids : (P,) int64 tensor
        Their numbers, rising.
    rows : (P, D) float32 or float64 tensor
    """

    ids: Tensor
    rows: Tensor


def is_archive(names: set[str]) -> bool:
    """Whether a file with tensors of these names holds an archive."""
    return STREAM in names


def check_archive(source: Path | str, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise FormatError unless these tensors are an archive, as the header describes it."""
    names = set(tensors)
    if names - _OF_KEPT != _ALWAYS or names & _OF_KEPT not in (set(), _OF_KEPT):
        raise FormatError(f"{source}: must hold {', '.join(sorted(_ALWAYS))}; it holds {sorted(names)[:9]}.")
    if set(header["checksums"]) != names - {BLOCKS}:
        raise FormatError(f"{source}: must list the checksums of its tensors. gpuzip did not write it.")
    if header["block_rows"] > LARGEST_BLOCK:
        raise FormatError(f"{source}: block_rows must be at most {LARGEST_BLOCK}. gpuzip did not write it.")
    count = -(-header["n"] // header["block_rows"])
    _check(source, BLOCKS, tensors[BLOCKS], (count, 2 * _PAIR.itemsize), torch.uint8)
    for name in (STREAM, MODEL):
        _check(source, name, tensors[name], (tensors[name].numel(),), torch.uint8)
    if KEPT in tensors:
        kept = tensors[KEPT_IDS].numel() // _ID.itemsize
        as_bytes = header["dtype"] == "float64"
        width, dtype = (8 * header["d"], torch.uint8) if as_bytes else (header["d"], torch.float32)
        _check(source, KEPT, tensors[KEPT], (kept, width), dtype)
        _check(source, KEPT_IDS, tensors[KEPT_IDS], (kept, _ID.itemsize), torch.uint8)


def _check(source: Path | str, name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise FormatError(
            f"{source}: {name} must be {shape} {dtype}; got {tuple(tensor.shape)} {tensor.dtype}. gpuzip did "
            "not write it."
        )


def tensors_of_archive(blocks: Blocks, model: bytes, kept: Kept | None) -> dict[str, Tensor]:
    """The tensors of a file."""
    spans = blocks.spans.tolist()
    data = blocks.stream.numpy().data
    pairs = np.array([(stop - start, zlib.crc32(data[start:stop])) for start, stop in spans], _PAIR)
    tensors = {
        STREAM: blocks.stream,
        BLOCKS: torch.from_numpy(pairs.reshape(-1, 2).view(np.uint8)),
        MODEL: torch.frombuffer(bytearray(model), dtype=torch.uint8),
    }
    if kept is not None:
        ids = kept.ids.cpu().numpy().astype(_ID).reshape(-1, 1).view(np.uint8)
        rows = kept.rows.cpu().contiguous()
        rows = rows.view(torch.uint8) if rows.dtype == torch.float64 else rows
        tensors |= {KEPT: rows, KEPT_IDS: torch.from_numpy(ids)}
    return tensors


def blocks_of(source: Path | str, tensors: dict[str, Tensor], block_rows: int) -> Blocks:
    """The blocks of a file that `check_archive` has passed. Raises FormatError for a wrong sum of lengths."""
    ends = torch.from_numpy(_pairs(tensors[BLOCKS])[:, 0].astype(np.int64)).cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    if total != tensors[STREAM].numel():
        raise FormatError(
            f"{source}: blocks must have {tensors[STREAM].numel()} bytes, as the stream; they have {total}. "
            "gpuzip did not write it."
        )
    return Blocks(tensors[STREAM], ends, block_rows)


def kept_of(source: Path | str, tensors: dict[str, Tensor], n: int) -> Kept | None:
    """The rows that a file stores as they were. Raises FormatError unless their numbers rise below n."""
    if KEPT not in tensors:
        return None
    ids = torch.from_numpy(tensors[KEPT_IDS].numpy().view(_ID)[:, 0].astype(np.int64))
    rising = bool((torch.diff(ids) > 0).all())
    if len(ids) and not (rising and int(ids[0]) >= 0 and int(ids[-1]) < n):
        raise FormatError(f"{source}: {KEPT_IDS} must rise within [0, {n}). gpuzip did not write it.")
    rows = tensors[KEPT]
    rows = rows.clone().view(torch.float64) if rows.dtype == torch.uint8 else rows
    if not bool(rows.isfinite().all()):
        raise FormatError(f"{source}: {KEPT} holds NaN or inf; gpuzip did not write it.")
    return Kept(ids, rows)


class UnverifiedBlocks:
    """The blocks of a file's stream that were not yet compared with their checksums.

    Parameters
    ----------
    path : Path or str
        The file, for messages.
    blocks : Blocks
        Its blocks, mapped.
    table : (blocks, 8) uint8 tensor
        Their lengths and checksums.
    fetch : callable, optional
        Reads bytes of a remote file: a block is then fetched where it would be compared.
    """

    path: Path | str

    def __init__(self, path: Path | str, blocks: Blocks, table: Tensor, fetch: Fetch | None = None) -> None:
        self.path, self._blocks, self._fetch = path, blocks, fetch
        self._right = _pairs(table)[:, 1]
        self._left = np.ones(len(blocks), bool)
        self._spans = blocks.spans.tolist()

    def verify(self, ids: Iterable[int]) -> None:
        """Compare these blocks with their checksums. Raises FormatError for one that is damaged."""
        todo = [block for block in ids if self._left[block]]
        stream = self._blocks.stream.numpy()
        data = stream.data
        for some in (todo[at : at + _AT_ONCE] for at in range(0, len(todo), _AT_ONCE)):
            spans = [self._spans[block] for block in some]
            if self._fetch is None:
                paging.soon(stream[start:stop] for start, stop in spans)
            parts = [data[start:stop] for start, stop in spans]
            if self._fetch is not None:
                fetched = self._fetch([(0, start, stop) for start, stop in spans])
                parts = [memoryview(part) for part in fetched]
            for block, (start, stop), part in zip(some, spans, parts, strict=True):
                if zlib.crc32(part) != self._right[block]:
                    raise damaged(self.path, block, self._blocks.rows)
                if self._fetch is not None:
                    data[start:stop] = part
                self._left[block] = False


def damaged(path: Path | str | None, block: int, rows: int) -> FormatError:
    """The error for a block that does not match its checksum or is no stream."""
    where = "" if path is None else f"{path}: "
    return FormatError(
        f"{where}block {block} of the stream, which holds the rows from {block * rows} on, is damaged. "
        "Restore the file, or save it again."
    )


def _pairs(table: Tensor) -> np.ndarray[Any, Any]:
    return table.numpy().view(_PAIR).reshape(-1, 2)
