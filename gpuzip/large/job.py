"""The record of a run in the folder that it fills: a run that resumes must have its source and arguments."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gpuzip._core.checks import printable
from gpuzip.dataset.lock import writing
from gpuzip.dataset.manifest import OURS, UNFINISHED
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage.atomic import replacing, sync_folder
from gpuzip.storage.folder import MANIFEST
from gpuzip.storage.header import canonical, is_intact, seal_of

FORMAT = 1
LIMIT = 16 << 20  # bytes; room for the facts of some 100,000 files

_FIELDS = {"format", "kind", "about", "digest"}


def is_unfinished(folder: Path) -> bool:
    """Whether a run began to fill a folder and did not end."""
    return os.path.lexists(folder / UNFINISHED)


@contextmanager
def begun(who: str, folder: Path, about: dict[str, Any], *, restart: bool) -> Iterator[None]:
    """Hold a folder for a run, which is new or goes on with the same one; others raise GpuzipError.

    restart: whether another run that was interrupted is removed, in place of an error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / UNFINISHED
    if is_unfinished(folder):
        with writing(who, path, 0):
            other = differences(_read(path), json.loads(canonical(about)))
        if other and not restart:
            raise GpuzipError(
                f"{who}: {folder} was begun by a run with other arguments or of another source, and can only "
                f"go on with the same: {'; '.join(other[:5])}. Repeat that call, or pass overwrite=True to "
                "begin anew."
            )
        if other:
            clear(folder)
    if not is_unfinished(folder):
        bare = {"format": FORMAT, "kind": who, "about": about}
        with replacing(path) as fresh:
            fresh.write_text(canonical(bare | {"digest": seal_of(bare)}), encoding="utf-8")
    with writing(who, path, 0):
        yield


def finish(folder: Path) -> None:
    """Remove the record of the run: the folder is complete, and a dataset like any other."""
    (folder / UNFINISHED).unlink()
    sync_folder(folder)


def clear(folder: Path) -> None:
    """Remove what a run has made in a folder: the manifest first, so that it is no dataset any more, and the
    file of the run last. Other files stay.
    """
    for name in [MANIFEST, *filter(OURS.fullmatch, os.listdir(folder)), UNFINISHED]:
        with suppress(FileNotFoundError):
            (folder / name).unlink()
    sync_folder(folder)


def remove_finished(folder: Path) -> None:
    """Remove a folder from which a destination was made; also one that is half gone."""
    if folder.is_dir() and not is_unfinished(folder):
        clear(folder)
        with suppress(OSError):  # a file of somebody else's is in it
            folder.rmdir()


def _read(path: Path) -> dict[str, Any]:
    advice = "Remove its folder, or pass overwrite=True."
    if path.is_symlink() or not path.is_file() or path.stat().st_size > LIMIT:
        raise FormatError(f"{path}: must be a file of at most {LIMIT} bytes. {advice}")
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: must be JSON. It is damaged. {advice}") from error
    whole = isinstance(found, dict) and set(found) == _FIELDS and is_intact(found, text)
    if not whole or not isinstance(found["about"], dict):
        raise FormatError(f"{path}: does not match its checksum. It is damaged. {advice}")
    if found["format"] != FORMAT:
        raise FormatError(f"{path}: is of format {found['format']}; this version reads {FORMAT}. {advice}")
    about: dict[str, Any] = found["about"]
    return about


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two JSON values, as text."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        return [
            text
            for key in keys
            for text in differences(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [text for i, (a, b) in pairs for text in differences(a, b, f"{name}[{i}]")]
    return [] if before == now else [f"{name} was {_shown(before)}, is {_shown(now)}"]


def _shown(value: Any) -> str:
    return printable(f"{value!r:.80}")
