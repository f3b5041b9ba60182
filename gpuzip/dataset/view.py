"""One state of a dataset: its manifest, its shards, and the lock that keeps its files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gpuzip.api import load_codec
from gpuzip.codecs.quantizer import Quantizer
from gpuzip.dataset.files import check_sizes, checked
from gpuzip.dataset.ids import Array, none
from gpuzip.dataset.lock import Held, hold
from gpuzip.dataset.manifest import Manifest, ShardEntry, generation_name, parse, read_text
from gpuzip.dataset.shards import Files, Shard
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage.folder import MANIFEST


class View:
    """A state that stays as it is while the object lives: no writer removes the files that it names."""

    folder: Path
    manifest: Manifest
    codec: Quantizer[Any]
    shards: list[Shard]

    def __init__(
        self, folder: Path, manifest: Manifest, held: Held, codec: Quantizer, known: dict[str, Files]
    ) -> None:
        self.folder, self.manifest, self._held, self.codec = folder, manifest, held, codec
        self.shards = [Shard(self._files(entry, known), entry) for entry in manifest.shards]

    def _files(self, entry: ShardEntry, known: dict[str, Files]) -> Files:
        """Those of an earlier state, which may be open, or new ones."""
        files = known.get(entry.codes.name)
        if files is not None and files.is_of(entry):
            return files
        return Files(self.folder, entry, self.codec, self.manifest.ids)

    @classmethod
    def open(cls, folder: Path, before: View | None = None) -> View:
        """The newest state. before: an earlier one, whose open files are used again. Raises FormatError."""
        while True:
            text = read_text(folder)
            manifest = parse(folder / MANIFEST, text)
            if before is not None and before.manifest == manifest:
                return before
            generation = folder / generation_name(text)
            if (held := hold(generation)) is not None:
                break
            if read_text(folder) == text:
                raise FormatError(f"{generation}: is missing. Copy {folder / MANIFEST} to that name.")
        if before is not None and before.manifest.codec != manifest.codec:
            before = None  # another dataset has been made in the folder
        checked_before = set() if before is None else {member.name for member in before.manifest.members}
        check_sizes(folder, [one for one in manifest.members if one.name not in checked_before])
        codec = before.codec if before is not None else _codec(folder, manifest)
        for entry in manifest.shards:
            _check_size(folder, entry, codec.code_size)
        known = {} if before is None else {shard.entry.codes.name: shard.files for shard in before.shards}
        return cls(folder, manifest, held, codec, known)

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    @property
    def kind(self) -> str | None:
        """The kind of ids: "int64", "string", or None where rows number themselves."""
        return self.manifest.ids

    @cached_property
    def starts(self) -> Array:
        """Place of each shard's first live row among all live rows, and the number of those: int64."""
        return np.cumsum([0, *map(len, self.shards)], dtype=np.int64)

    def ids(self) -> Array:
        """Ids of all live rows, in order."""
        found: Array = np.concatenate([none(self.kind), *(shard.live_ids() for shard in self.shards)])
        return found

    def find(self, ids: Array) -> tuple[Array, Array]:
        """Shard and row in the shard of each id; -1 for those that no row has."""
        of_shard, rows = (np.full(len(ids), -1, np.int64) for _ in range(2))
        left = np.arange(len(ids))
        for number, shard in enumerate(self.shards):
            if not len(left):
                break
            found = shard.find(ids[left])
            is_here = found >= 0
            of_shard[left[is_here]], rows[left[is_here]] = number, found[is_here]
            left = left[~is_here]
        return of_shard, rows

    def locate(self, who: str, ids: Array) -> Iterator[tuple[int, Array, Array]]:
        """For each shard with some of these ids: its number, positions in ids, and rows in the shard.

        Raises GpuzipError, which names it, for an id that no row has.
        """
        of_shard, rows = self.find(ids)
        if unknown := ids[of_shard < 0].tolist():
            raise GpuzipError(
                f"{who}: ids must be of rows of the dataset; got {unknown[0]!r:.200}, which none has."
            )
        for number in np.unique(of_shard).tolist():
            here = np.flatnonzero(of_shard == number)
            yield number, here, rows[here]

    def by_place(self, places: Array) -> Iterator[tuple[Shard, Array, Array]]:
        """For each shard with some of these places among all live rows: it, positions, and rows in it."""
        of_shard = np.searchsorted(self.starts, places, side="right") - 1
        for number in np.unique(of_shard).tolist():
            here = np.flatnonzero(of_shard == number)
            shard = self.shards[number]
            yield shard, here, shard.rows_at(places[here] - self.starts[number])

    def ids_at(self, places: Array) -> Array:
        """Ids of the rows at some places among all live rows, in the shape of `places`."""
        flat = places.reshape(-1)
        found: Array = np.empty(flat.shape, none(self.kind).dtype)
        for shard, here, rows in self.by_place(flat):
            found[here] = shard.ids.take(rows)
        return np.reshape(found, places.shape)


def _codec(folder: Path, manifest: Manifest) -> Quantizer:
    path = checked(folder, manifest.codec, verify=True)
    codec = load_codec(path)
    if not isinstance(codec, Quantizer):
        raise FormatError(f"{path}: must hold a codec. gpuzip did not write it.")
    return codec


def _check_size(folder: Path, entry: ShardEntry, code_size: int) -> None:
    """Raise FormatError unless the files have room for as many rows as the manifest says."""
    least = {entry.codes: entry.n * code_size, entry.ids: 8 * entry.n, entry.gone: entry.n // 8}
    for member, size in least.items():
        if member is not None and member.bytes < size:
            raise FormatError(
                f"{folder / member.name}: must have a row per {entry.n} rows of the manifest; it has "
                f"{member.bytes} bytes. gpuzip did not write it."
            )
