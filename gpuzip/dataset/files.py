"""Files of a dataset: written under names that hold their digests, checked, and removed when unused."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from gpuzip.dataset.lock import remove_unless_held
from gpuzip.dataset.manifest import OURS, Manifest, file_name, generation_name, parse, read_text
from gpuzip.errors import FormatError
from gpuzip.storage.atomic import replacing, sync_folder, take_after
from gpuzip.storage.folder import MANIFEST, Member, check_member, digest_of, ends_of

_GENERATION = "generation-"


def add_file(folder: Path, role: str, write: Callable[[BinaryIO], object]) -> Member:
    """Write a file, flush it to disk, and name it after its role and digest.

    Raises OSError, which names the folder, where the disk is full or the folder must not be written.
    """
    fresh = folder / f".{secrets.token_hex(8)}.new"
    try:
        with open(fresh, "xb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        if (manifest := folder / MANIFEST).exists():  # who may read the old files may read the new ones
            take_after(fresh, manifest.stat())
        digest = digest_of(fresh)
        member = Member(file_name(role, digest), fresh.stat().st_size, digest, ends_of(fresh))
        os.replace(fresh, folder / member.name)
    except BaseException as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _told(folder, error) from error
        raise
    return member


def commit(folder: Path, manifest: Manifest) -> None:
    """Make a state the one that is opened, once all its files are on disk."""
    text = manifest.text()
    generation = folder / generation_name(text)
    try:
        sync_folder(folder)
        for path in (generation, folder / MANIFEST):
            with replacing(path) as fresh:
                fresh.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _told(folder, error) from error


def _told(folder: Path, error: OSError) -> OSError:
    text = f"{error.strerror or error}; the dataset is as it was. Correct that and write again"
    return OSError(error.errno, text, str(folder)) if error.errno else OSError(f"{folder}: {text}.")


def check_sizes(folder: Path, members: list[Member]) -> None:
    """Raise FormatError unless all files are there, regular, and of their sizes. No file is opened."""
    for member in members:
        path = folder / member.name
        try:
            found = os.lstat(path)
        except FileNotFoundError as error:
            raise FormatError(f"{path}: is missing. Restore it.") from error
        if not stat.S_ISREG(found.st_mode):
            raise FormatError(
                f"{path}: must be a regular file; it is a link, a folder or a device. Restore it."
            )
        if found.st_size != member.bytes:
            raise FormatError(
                f"{path}: must have {member.bytes} bytes, as in the manifest; it has {found.st_size}. "
                "Restore it."
            )


def checked(folder: Path, member: Member, *, verify: bool) -> Path:
    """The path of a file whose size and ends match; verify=True checks every byte. Raises FormatError."""
    check_sizes(folder, [member])
    check_member(folder / member.name, member, verify)
    return folder / member.name


def sweep(folder: Path) -> None:
    """Remove files that neither the manifest nor a state that somebody holds names. Writers alone call it."""
    with suppress(OSError, FormatError):
        text = read_text(folder)
        kept = {member.name for member in parse(folder / MANIFEST, text).members} | {generation_name(text)}
        ours = {name for name in os.listdir(folder) if OURS.fullmatch(name)}
        for name in {name for name in ours - kept if name.startswith(_GENERATION)}:
            if not remove_unless_held(folder / name):
                kept |= _named_by(folder / name) | {name}
        for name in ours - kept:
            with suppress(OSError):  # Windows cannot remove a mapped file; the next writer does
                (folder / name).unlink()


def _named_by(generation: Path) -> set[str]:
    """Names of the files of a state. Raises FormatError or OSError, and then nothing is removed."""
    text = generation.read_text(encoding="utf-8")
    return {member.name for member in parse(generation, text).members}
