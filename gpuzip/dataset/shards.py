"""A shard of a dataset: codes, ids and removed rows, each read and checked when it is first needed."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from gpuzip._core.planes import sizes_of
from gpuzip.codecs.base import Codec
from gpuzip.codecs.codes import Codes
from gpuzip.dataset.files import checked
from gpuzip.dataset.ids import Array, Consecutive, IdColumn, read_ids
from gpuzip.dataset.manifest import ShardEntry
from gpuzip.errors import FormatError
from gpuzip.search.packed import Packed
from gpuzip.storage import read_codes
from gpuzip.storage.tensors import read_tensors, write_tensors


class Files:
    """The files of a shard that no later state changes. States of a dataset share it."""

    folder: Path
    entry: ShardEntry

    def __init__(self, folder: Path, entry: ShardEntry, codec: Codec, kind: str | None) -> None:
        self.folder, self.entry, self._codec, self._kind = folder, entry, codec, kind
        self._is_verified = False

    @cached_property
    def codes(self) -> Codes:
        """All rows, mapped."""
        path = checked(self.folder, self.entry.codes, verify=False)
        contents, codec = read_codes(path, verify=False), self._codec
        info, state = contents.info, codec.state()
        is_same = (
            info.codec == codec.id
            and info.config == json.loads(json.dumps(codec.config()))
            and info.n == self.entry.n
            and info.d == codec.d
            and sizes_of(contents.codes) == codec.plane_sizes
            and set(contents.state) == set(state)
            and all(torch.equal(contents.state[name], tensor) for name, tensor in state.items())
        )
        if not is_same:
            raise FormatError(
                f"{path}: must hold {self.entry.n} rows of the dataset's codec. It belongs to another: "
                "restore it."
            )
        codes = Codes(codec, contents.codes, info.dtype)
        codes.packed = Packed(contents.codes, codec.norms, None if self._is_verified else contents.unverified)
        return codes

    def close(self) -> None:
        """Give back the map of the codes and what a search remembers of them. The next use opens it again."""
        codes = vars(self).pop("codes", None)
        if codes is not None:
            self._is_verified = self._is_verified or codes.packed.is_verified

    @cached_property
    def ids(self) -> IdColumn:
        """Ids of all rows; the first use checks every byte of their file."""
        if self.entry.ids is None:
            assert self.entry.first is not None
            return Consecutive(self.entry.first, self.entry.n)
        return read_ids(checked(self.folder, self.entry.ids, verify=True), self._kind, self.entry.n)

    @cached_property
    def columns(self) -> Path:
        """The file of the columns of all rows; the first use checks every byte."""
        assert self.entry.columns is not None
        return checked(self.folder, self.entry.columns, verify=True)

    def is_of(self, entry: ShardEntry) -> bool:
        """Whether these are the files of a shard of another state."""
        mine = self.entry
        same = (mine.codes, mine.ids, mine.columns) == (entry.codes, entry.ids, entry.columns)
        return same and (mine.n, mine.first) == (entry.n, entry.first)


class Shard:
    """One shard as one state of the dataset has it."""

    files: Files
    entry: ShardEntry

    def __init__(self, files: Files, entry: ShardEntry) -> None:
        self.files, self.entry = files, entry

    def __len__(self) -> int:
        """Number of rows that are not removed."""
        return self.entry.live

    @property
    def codes(self) -> Codes:
        return self.files.codes

    @property
    def ids(self) -> IdColumn:
        return self.files.ids

    @cached_property
    def gone(self) -> Array | None:
        """(n,) bool, True for removed rows; None if there are none."""
        if self.entry.gone is None:
            return None
        path = checked(self.files.folder, self.entry.gone, verify=True)
        bits = read_tensors(path)[0].get("gone")
        if bits is None or bits.dtype != torch.uint8 or bits.shape != (-(-self.entry.n // 8),):
            raise FormatError(f"{path}: must hold a bit per row. gpuzip did not write it.")
        found = np.unpackbits(bits.numpy(), bitorder="little")
        if int(found.sum()) != self.entry.removed or found[self.entry.n :].any():
            raise FormatError(
                f"{path}: must hold {self.entry.removed} removed rows. gpuzip did not write it."
            )
        return found[: self.entry.n].astype(bool)

    @property
    def live(self) -> Array:
        """Rows of the shard that are not removed, ascending."""
        return np.arange(self.entry.n) if self.gone is None else self._left

    @cached_property
    def _left(self) -> Array:
        assert self.gone is not None
        return np.flatnonzero(~self.gone)

    def rows_at(self, places: Array) -> Array:
        """Rows of the shard at some places among those that are not removed."""
        return places if self.gone is None else self._left[places]

    def places_of(self, rows: Array) -> Array:
        """Places of some rows among those that are not removed."""
        return rows if self.gone is None else np.searchsorted(self._left, rows)

    def live_codes(self) -> Codes:
        """Codes of the rows that are not removed: a copy of their bytes where some are."""
        return self.codes if self.gone is None else self.codes[torch.from_numpy(self.live)]

    def live_ids(self) -> Array:
        return self.ids.take(self.live)

    def find(self, ids: Array) -> Array:
        """Row of each id, -1 for those that no row has, or only one that is removed."""
        rows = self.ids.find(ids)
        if self.gone is not None:
            rows[(rows >= 0) & self.gone[rows]] = -1
        return rows


def write_gone(gone: Array, out: BinaryIO) -> None:
    """Write what `Shard.gone` reads."""
    write_tensors(out, {"gone": torch.from_numpy(np.packbits(gone, bitorder="little"))})
