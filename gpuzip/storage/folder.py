"""A folder of files that is replaced completely or not at all. Its manifest lists its files.

manifest.json is a JSON object:

format    1; readers refuse a greater one
library   version of gpuzip that wrote the folder
kind      what the folder holds
about     description of the contents, which depends on the kind
files     by label: name in the folder, bytes, BLAKE2b-128 of all bytes and of both ends
digest    BLAKE2b-128 of this object without `digest`

A file's name holds its digest, so no name is ever given to other bytes: new files are written under names
of their own, the manifest is replaced, and only then the files that it no longer names are removed.
Whenever that is interrupted, the folder is what it was or what it was to be. Writers wait for each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from gpuzip._version import __version__
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage.atomic import behind_links, replacing, sync_folder, take_after
from gpuzip.storage.locks import one_writer
from gpuzip.storage.paths import local_path

FORMAT = 1
MANIFEST = "manifest.json"

#: Upper bound for the bytes of the manifest of a folder of codes.
MANIFEST_BYTES = 4096

#: Largest accepted manifest in bytes; gpuzip writes a few thousand.
MANIFEST_LIMIT = 1 << 20

_END = 4096  # bytes; the header of an .ezip file, with all checksums, is shorter
_OPENED_BY = {
    "mixed": "gpuzip.open",
    "words": "gpuzip.WordVectors.load",
    "store": "load or from_persist_path of a GpuzipVectorStore",
    "static": "gpuzip.interop.model2vec.load",
}
_FIELDS = {"format", "library", "kind", "about", "files", "digest"}
_NAME = re.compile(r"[a-z]+(-[0-9]+)?-[0-9a-f]{16}\.[a-z]+")
_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.(new|tmp)")

Writer = Callable[[Path], object]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Member:
    """One file of a folder. digest: of all its bytes. ends: digest of its first and last 4096 bytes."""

    name: str
    bytes: int
    digest: str
    ends: str


@dataclass(frozen=True)
class Folder:
    """A folder as its manifest describes it."""

    path: Path
    about: dict[str, Any]
    members: dict[str, Member]

    def file(self, label: str) -> Path:
        """Return the path of a labelled file. Raises FormatError if the manifest has none."""
        if label not in self.members:
            raise FormatError(f"{self.path / MANIFEST}: must name {label}. gpuzip did not write it.")
        return self.path / self.members[label].name

    def verified(self, label: str) -> Path:
        """Return the path of a labelled file after checking all its bytes. Raises FormatError."""
        check_member(self.file(label), self.members[label], verify=True)
        return self.file(label)


def write_folder(
    path: str | os.PathLike[str], kind: str, about: dict[str, Any], writers: Mapping[str, Writer]
) -> Folder:
    """Write or replace a folder and make its parent folders.

    writers: a function per label, such as "part-0.ezip", that writes its file to a given path.
    Raises NotADirectoryError for a file, and GpuzipError for a folder that holds other files.
    """
    target = local_path("save", path)
    _check_target(target)
    with one_writer(behind_links(target)):
        try:
            members = {label: _add(target, label, write) for label, write in writers.items()}
            sync_folder(target)
            with replacing(target / MANIFEST) as fresh:
                fresh.write_text(_sealed(kind, about, members), encoding="utf-8")
        finally:
            _sweep(target)
    return Folder(target, about, members)


def read_folder(
    path: str | os.PathLike[str], kind: str, read: Callable[[Folder], Result], *, verify: bool
) -> Result:
    """Check the sizes and ends of all files, then return what `read` makes of the folder.

    verify=True reads and checks every byte. A folder that is replaced meanwhile is read again.
    Raises FileNotFoundError, NotADirectoryError or FormatError, which name the file.
    """
    source = local_path("open", path)
    while True:
        text = _manifest(source)
        try:
            folder = _unsealed(source, text, kind)
            for member in folder.members.values():
                check_member(source / member.name, member, verify)
            return read(folder)
        except (FormatError, FileNotFoundError):
            if _manifest(source) == text:
                raise


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"save: {target} must be a folder; it is a file. Name a folder.")
    names = os.listdir(target) if target.exists() else []
    if MANIFEST in names:
        _unsealed(target, _manifest(target), None)
        return
    others = sorted(name for name in names if not _is_ours(name))
    if others:
        raise GpuzipError(
            f"save: {target} must be new, empty or a folder of gpuzip; it holds "
            f"{', '.join(others[:3])}{' ...' * (len(others) > 3)}. Name another folder."
        )


def _add(target: Path, label: str, write: Writer) -> Member:
    """Write one file and name it after its digest."""
    fresh = target / f".{secrets.token_hex(8)}.new"
    write(fresh)
    with open(fresh, "rb+") as file:
        os.fsync(file.fileno())
    if (manifest := target / MANIFEST).exists():  # who may read the old files may read the new ones
        take_after(fresh, manifest.stat())
    digest, ends = digest_of(fresh), ends_of(fresh)
    stem, suffix = os.path.splitext(label)
    member = Member(f"{stem}-{digest[:16]}{suffix}", fresh.stat().st_size, digest, ends)
    os.replace(fresh, target / member.name)
    return member


def _sweep(target: Path) -> None:
    """Remove files that the manifest does not name, left by this or an interrupted write."""
    named: set[str] = set()
    if (target / MANIFEST).exists():
        named = {member.name for member in _unsealed(target, _manifest(target), None).members.values()}
    for name in filter(_is_ours, set(os.listdir(target)) - named):
        with suppress(OSError):  # Windows cannot remove a mapped file; the next write does
            (target / name).unlink()


def _is_ours(name: str) -> bool:
    return bool(_NAME.fullmatch(name) or _UNFINISHED.fullmatch(name))


def _manifest(source: Path) -> str:
    if not source.exists():
        raise FileNotFoundError(f"open: there is no folder {source}.")
    if not source.is_dir():
        raise NotADirectoryError(f"open: {source} must be a folder; it is a file.")
    path = source / MANIFEST
    if not path.is_file():
        raise FormatError(
            f"{source}: must hold {MANIFEST}. gpuzip did not write it, or the write was interrupted."
        )
    with open(path, "rb") as file:
        data = file.read(MANIFEST_LIMIT + 1)
    if len(data) > MANIFEST_LIMIT:
        raise FormatError(f"{path}: must have at most {MANIFEST_LIMIT} bytes. gpuzip did not write it.")
    return data.decode("utf-8", "replace")


def _unsealed(source: Path, text: str, kind: str | None) -> Folder:
    path = source / MANIFEST
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: must be JSON. It is damaged, or gpuzip did not write it.") from error
    if not isinstance(manifest, dict) or type(manifest.get("format")) is not int or manifest["format"] < 1:
        raise FormatError(f"{path}: must have a format number. It is damaged, or gpuzip did not write it.")
    if manifest["format"] > FORMAT:
        raise FormatError(
            f"{path}: format {manifest['format']} is newer than this version reads ({FORMAT}). "
            "Upgrade gpuzip."
        )
    if manifest.get("kind") == "dataset":  # its manifest has other keys
        raise FormatError(f"{path}: must be of a folder of codes; it is of a dataset: gpuzip.Dataset.open.")
    if set(manifest) != _FIELDS or not _is_intact(manifest, text):
        raise FormatError(f"{path}: does not match its checksum. It is damaged.")
    is_plain = isinstance(manifest["kind"], str) and isinstance(manifest["about"], dict)
    if not is_plain or not _are_members(manifest["files"]):
        raise FormatError(f"{path}: holds values of wrong types. gpuzip did not write it.")
    if kind not in (None, manifest["kind"]):
        raise FormatError(
            f"{path}: must hold {kind!r}; it holds {manifest['kind']!r:.40}. Open such a folder with "
            f"{_OPENED_BY.get(manifest['kind'], 'what wrote it')}."
        )
    members = {label: Member(**entry) for label, entry in manifest["files"].items()}
    return Folder(source, manifest["about"], members)


def _are_members(files: Any) -> bool:
    """Whether these describe files in the folder itself: names must not be paths."""
    kinds = {"name": str, "bytes": int, "digest": str, "ends": str}
    return isinstance(files, dict) and all(
        isinstance(entry, dict)
        and {key: type(value) for key, value in entry.items()} == kinds
        and _NAME.fullmatch(entry["name"]) is not None
        for entry in files.values()
    )


def check_member(path: Path, member: Member, verify: bool) -> None:
    if not path.is_file():
        raise FormatError(f"{path}: is missing. Restore it, or save the folder again.")
    size = path.stat().st_size
    if size != member.bytes:
        raise FormatError(
            f"{path}: must have {member.bytes} bytes, as in the manifest; it has {size}. Restore it."
        )
    if ends_of(path) != member.ends or (verify and digest_of(path) != member.digest):
        raise FormatError(f"{path}: does not match its checksum in the manifest. It was altered: restore it.")


def digest_of(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def ends_of(path: Path) -> str:
    with open(path, "rb") as file:
        first = file.read(_END)
        file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
        return hashlib.blake2b(first + file.read(_END), digest_size=16).hexdigest()


def _sealed(kind: str, about: dict[str, Any], members: dict[str, Member]) -> str:
    files = {label: asdict(member) for label, member in members.items()}
    manifest = {"format": FORMAT, "library": __version__, "kind": kind, "about": about, "files": files}
    return _text(manifest | {"digest": _seal(manifest)})


def _is_intact(manifest: dict[str, Any], text: str) -> bool:
    bare = {name: value for name, value in manifest.items() if name != "digest"}
    try:
        return bool(manifest["digest"] == _seal(bare)) and text == _text(manifest)
    except (ValueError, RecursionError):  # NaN, or nested too deeply
        return False


def _seal(bare: dict[str, Any]) -> str:
    return hashlib.blake2b(_text(bare).encode(), digest_size=16).hexdigest()


def _text(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False) + "\n"
