"""The manifest of a dataset: which files it has, what they hold, and how they are checked.

manifest.json is a JSON object with sorted keys and no spaces:

format      1; readers refuse a greater one
library     version of gpuzip that wrote it
kind        "dataset"
generation  number of this state; every write adds 1
ids         "int64", "string", or null where rows number themselves
next        the number of the next row, where rows number themselves; else 0
dtype       dtype in which rows are decoded
columns     Arrow type by name of column; null before the first rows
codec       the file of the codec
shards      in the order of their rows: n, first, removed, and the files codes, ids, gone, columns
digest      BLAKE2b-128 of this object without `digest`

A file is its name in the folder, its bytes, and BLAKE2b-128 of all bytes and of both ends. `first` is the id
of a shard's first row where its ids are consecutive; otherwise `ids` names a file of them.
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gpuzip._core.checks import printable
from gpuzip._version import __version__
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage.folder import MANIFEST, Member
from gpuzip.storage.header import canonical, is_intact, seal_of

FORMAT = 1
KIND = "dataset"

#: Largest accepted manifest in bytes: room for some 20,000 shards.
LIMIT = 16 << 20

ID_KINDS = ("int64", "string", None)
DTYPES = ("float32", "float16", "bfloat16", "float64")

_ROLES = {"codec": "ezip", "codes": "ezip", "ids": "safetensors", "gone": "safetensors", "columns": "parquet"}
_MOST = 1 << 62  # rows and numbers of rows, so that sums of two are int64
_FIELDS = {
    *("format", "library", "kind", "generation", "ids", "next", "dtype", "columns", "codec", "shards"),
    "digest",
}
_OF_A_SHARD = {"n", "first", "removed", "codes", "ids", "gone", "columns"}
_HEX = re.compile(r"[0-9a-f]{32}")

#: The file by which `compress_file` knows a dataset that it has not filled yet. Others leave it alone.
UNFINISHED = "compressing.json"

#: Names of all files that a dataset makes.
OURS = re.compile(
    r"(codec|codes)-[0-9a-f]{16}\.ezip|(ids|gone)-[0-9a-f]{16}\.safetensors|columns-[0-9a-f]{16}\.parquet"
    r"|generation-[0-9a-f]{16}\.json|\.[0-9a-f]{16}\.(new|tmp)"
)


@dataclass(frozen=True)
class ShardEntry:
    """One shard of n rows, of which some are removed. gone: the file of those; None if there are none."""

    n: int
    first: int | None
    removed: int
    codes: Member
    ids: Member | None
    gone: Member | None
    columns: Member | None

    @property
    def live(self) -> int:
        return self.n - self.removed

    @property
    def members(self) -> list[Member]:
        files = (self.codes, self.ids, self.gone, self.columns)
        return [member for member in files if member is not None]


@dataclass(frozen=True)
class Manifest:
    """One state of a dataset."""

    generation: int
    ids: str | None
    next: int
    dtype: str
    columns: dict[str, str] | None
    codec: Member
    shards: tuple[ShardEntry, ...]

    @property
    def members(self) -> list[Member]:
        """All files, once per mention."""
        return [self.codec, *(member for shard in self.shards for member in shard.members)]

    def after(self, **changes: Any) -> Manifest:
        """The next state, with some changes."""
        return replace(self, generation=self.generation + 1, **changes)

    def text(self) -> str:
        """What manifest.json holds. Raises GpuzipError for more than LIMIT bytes."""
        bare = {"format": FORMAT, "library": __version__, "kind": KIND} | vars(self)
        bare |= {"codec": vars(self.codec), "shards": list(map(_json, self.shards))}
        text = canonical(bare | {"digest": seal_of(bare)})
        if len(text) > LIMIT:
            raise GpuzipError(
                f"Dataset: the manifest must have at most {LIMIT} bytes; {len(self.shards)} shards take "
                f"{len(text)}. Call compact(), and append more rows at a time."
            )
        return text


def _json(shard: ShardEntry) -> dict[str, Any]:
    return {name: vars(value) if isinstance(value, Member) else value for name, value in vars(shard).items()}


def generation_name(text: str) -> str:
    """The name of the copy of a manifest that its readers lock. text: one that `parse` accepts."""
    return f"generation-{json.loads(text)['digest'][:16]}.json"


def read_text(folder: Path) -> str:
    """The manifest's text. Raises FileNotFoundError, NotADirectoryError or FormatError."""
    path = folder / MANIFEST
    if not folder.exists():
        raise FileNotFoundError(f"Dataset.open: there is no folder {folder}.")
    if not folder.is_dir():
        raise NotADirectoryError(f"Dataset.open: {folder} must be a folder; it is a file.")
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError as error:
        raise FormatError(
            f"{folder}: must hold {MANIFEST}. Make a dataset with gpuzip.Dataset.create, or restore it."
        ) from error
    if not stat.S_ISREG(kind):
        raise FormatError(f"{path}: must be a regular file; it is a link, a folder or a device. Restore it.")
    with open(path, "rb") as file:
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise FormatError(f"{path}: must have at most {LIMIT} bytes. gpuzip did not write it.")
    return data.decode("utf-8", "replace")


@lru_cache(2)
def parse(path: Path, text: str) -> Manifest:
    """The manifest of a text. path: for messages. Raises FormatError unless gpuzip wrote it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: must be JSON. It is damaged, or gpuzip did not write it.") from error
    if not isinstance(found, dict) or type(found.get("format")) is not int or found["format"] < 1:
        raise FormatError(f"{path}: must have a format number. It is damaged, or gpuzip did not write it.")
    if found["format"] > FORMAT:
        raise FormatError(
            f"{path}: format {found['format']} is newer than this version reads ({FORMAT}); gpuzip "
            f"{printable(str(found.get('library')))[:40]} wrote it. Upgrade gpuzip to that version."
        )
    if found.get("kind") != KIND:
        raise FormatError(
            f"{path}: must be of a dataset; it is of {printable(repr(found.get('kind')))[:40]}. Open it with "
            "gpuzip.open, or with what wrote it."
        )
    if set(found) != _FIELDS or not is_intact(found, text):
        raise FormatError(f"{path}: does not match its checksum. It is damaged.")
    if not _is_plausible(found):
        raise FormatError(f"{path}: holds values of wrong types. gpuzip did not write it.")
    manifest = Manifest(
        **{name: found[name] for name in ("generation", "ids", "next", "dtype", "columns")},
        codec=Member(**found["codec"]),
        shards=tuple(map(_shard, found["shards"])),
    )
    _check_together(path, manifest)
    return manifest


def _is_plausible(found: dict[str, Any]) -> bool:
    columns = found["columns"]
    of_columns = columns is None or (
        isinstance(columns, dict) and all(isinstance(kind, str) for kind in columns.values())
    )
    return (
        _is_count(found["generation"])
        and _is_count(found["next"])
        and (found["ids"] is None or found["ids"] in ("int64", "string"))
        and found["dtype"] in DTYPES
        and of_columns
        and _is_file("codec", found["codec"])
        and isinstance(found["shards"], list)
        and all(map(_is_shard, found["shards"]))
    )


def _is_shard(entry: Any) -> bool:
    if not isinstance(entry, dict) or set(entry) != _OF_A_SHARD:
        return False
    may_lack = ("ids", "gone", "columns")
    return (
        _is_count(entry["n"])
        and entry["n"] > 0
        and _is_count(entry["removed"])
        and entry["removed"] < entry["n"]
        and (entry["first"] is None or _is_count(entry["first"]))
        and (entry["first"] is None) != (entry["ids"] is None)
        and (entry["removed"] > 0) == (entry["gone"] is not None)
        and _is_file("codes", entry["codes"])
        and all(entry[role] is None or _is_file(role, entry[role]) for role in may_lack)
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _is_file(role: str, entry: Any) -> bool:
    """Whether this is a file in the folder itself, named after its role and its digest: no name is a path."""
    kinds = {"name": str, "bytes": int, "digest": str, "ends": str}
    return (
        isinstance(entry, dict)
        and {key: type(value) for key, value in entry.items()} == kinds
        and _is_count(entry["bytes"])
        and all(_HEX.fullmatch(entry[key]) is not None for key in ("digest", "ends"))
        and entry["name"] == file_name(role, entry["digest"])
    )


def file_name(role: str, digest: str) -> str:
    return f"{role}-{digest[:16]}.{_ROLES[role]}"


def _shard(entry: dict[str, Any]) -> ShardEntry:
    files = {role: entry[role] and Member(**entry[role]) for role in ("codes", "ids", "gone", "columns")}
    return ShardEntry(entry["n"], entry["first"], entry["removed"], **files)


def _check_together(path: Path, manifest: Manifest) -> None:
    """Raise FormatError unless the shards fit the kind of ids, the columns and each other."""
    is_numbered, end, rows = manifest.ids is None, 0, 0
    for shard in manifest.shards:
        rows += shard.n
        if shard.first is not None:
            end = max(end, shard.first + shard.n)
        fits = (shard.first is None or is_numbered) and rows <= _MOST
        if not fits or bool(manifest.columns) != (shard.columns is not None):
            raise FormatError(f"{path}: its shards do not fit each other. gpuzip did not write it.")
    if (end > manifest.next) or (manifest.next and not is_numbered):
        raise FormatError(f"{path}: its shards do not fit each other. gpuzip did not write it.")
