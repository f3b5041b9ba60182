"""The next state of a dataset, while one writer makes it: files first, the manifest last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpuzip.codecs.codes import Codes
from gpuzip.dataset.columns import as_table, kinds_of, schema_of, write_table
from gpuzip.dataset.files import add_file, commit
from gpuzip.dataset.ids import Array, write_ids
from gpuzip.dataset.manifest import ShardEntry
from gpuzip.dataset.shards import Shard, write_gone
from gpuzip.dataset.view import View
from gpuzip.errors import GpuzipError


class Draft:
    """Changes to the newest state, which `save` makes at once.

    view: that state. shards: the entries of the next one, to be changed. next: the number of the next row.
    """

    view: View
    folder: Path
    shards: list[ShardEntry]
    next: int

    def __init__(self, view: View) -> None:
        self.view, self.folder = view, view.folder
        self.shards = list(view.manifest.shards)
        self.next, self.columns = view.manifest.next, view.manifest.columns

    def shard(self, codes: Codes, ids: Array, table: Any) -> ShardEntry:
        """Write the files of a shard. Ids that are consecutive need none where rows number themselves."""
        codes = Codes(self.view.codec, codes.packed.data, getattr(torch, self.view.manifest.dtype))
        first = None
        if self.view.kind is None and bool((np.diff(ids) == 1).all()):
            first = int(ids[0])
        return ShardEntry(
            n=len(codes),
            first=first,
            removed=0,
            codes=add_file(self.folder, "codes", codes.save),
            ids=None if first is not None else add_file(self.folder, "ids", partial(write_ids, ids)),
            gone=None,
            columns=None if table is None else add_file(self.folder, "columns", partial(write_table, table)),
        )

    def table(self, who: str, columns: Any, n: int) -> Any:
        """A caller's columns of n rows as a pyarrow.Table, or None; see `columns.as_table`."""
        if self.columns == {} and columns is not None:
            raise GpuzipError(f"{who}: columns must be none, as of earlier rows. Leave them out.")
        files = [shard.files for shard in self.view.shards if shard.entry.columns is not None]
        return as_table(who, columns, n, files[0].columns if files else None)

    def append(self, codes: Codes, ids: Array, table: Any) -> None:
        self.shards.append(self.shard(codes, ids, table))
        if self.columns is None:
            columns = self.shards[-1].columns
            self.columns = {} if columns is None else kinds_of(schema_of(self.folder / columns.name))

    def remove(self, found: Sequence[tuple[int, Array]]) -> None:
        """Mark rows as removed: numbers of shards of `view`, and rows in them. Empty shards go."""
        for number, rows in found:
            shard = self.view.shards[number]
            gone = np.zeros(shard.entry.n, bool) if shard.gone is None else shard.gone.copy()
            gone[rows] = True
            self.shards[number] = self._without(shard, gone)
        self.shards = [entry for entry in self.shards if entry.live]

    def _without(self, shard: Shard, gone: Array) -> ShardEntry:
        removed = int(gone.sum())
        if removed == shard.entry.n:  # needs no file: it is dropped
            return replace(shard.entry, removed=removed)
        return replace(
            shard.entry, removed=removed, gone=add_file(self.folder, "gone", partial(write_gone, gone))
        )

    def save(self) -> None:
        """Commit, unless nothing has changed."""
        before = self.view.manifest
        columns = self.columns if self.shards else None
        after = before.after(shards=tuple(self.shards), next=self.next, columns=columns)
        if after != before.after():
            commit(self.folder, after)
