"""Files and folders of files as a source."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.checks import printable
from gpuzip.errors import DtypeError, FormatError, GpuzipError
from gpuzip.interop.matrices.formats import find_matrix, is_matrix_file
from gpuzip.interop.matrices.stored import Stored
from gpuzip.large.source import Source, as_tensor
from gpuzip.storage.paths import local_path

Array = np.ndarray[Any, Any]

_FIRST = 4096  # bytes of a file that identify it, beside its size and time of change
_FLOATS = ("float16", "bfloat16", "float32", "float64")


def are_files(src: Any) -> bool:
    """Whether these are files: a path, or a list of paths."""
    if isinstance(src, str | os.PathLike):
        return True
    return isinstance(src, list | tuple) and bool(src) and all(isinstance(p, str | os.PathLike) for p in src)


def of_files(who: str, src: Any, name: str | None, format: str | None) -> Source:
    """A file, the files of a folder by name, or files in the order of a list."""
    paths: list[Any] = [src] if isinstance(src, str | os.PathLike) else list(src)
    if len(paths) == 1 and (folder := local_path(who, paths[0])).is_dir():
        paths = _of_folder(who, folder)
    parts = [find_matrix(path, name=name, format=format, who=who) for path in paths]
    _check(who, parts)
    n, d = sum(part.shape[0] for part in parts), parts[0].shape[1]
    facts = {"n": n, "d": d, "dtype": parts[0].dtype, "name": name, "files": [_facts(p.path) for p in parts]}
    files = _Joined(who, parts)
    can_pick = all(part.rows is not None for part in parts)
    dtype: torch.dtype = getattr(torch, parts[0].dtype)
    return Source(n, d, dtype, files.each, facts, files.rows if can_pick else None)


def _of_folder(who: str, folder: Path) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if is_matrix_file(path) and path.is_file())
    if not found:
        raise GpuzipError(
            f"{who}: {folder} must hold files of rows, such as .npy or .parquet; it has none. Name another."
        )
    return found


def _check(who: str, parts: Sequence[Stored]) -> None:
    first = parts[0]
    for part in parts:
        if part.dtype not in _FLOATS:
            raise DtypeError(
                f"{who}: {part.path} must hold {', '.join(_FLOATS)}; it holds {printable(part.dtype)}. "
                "Convert it, for example with x.astype('float32')."
            )
        if part.shape[1] == 0 and part.shape[0]:
            raise FormatError(f"{part.path}: must have at least one column; it has none.")
        if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
            raise GpuzipError(
                f"{who}: all files must have {first.shape[1]} columns of {first.dtype}, as {first.path}; "
                f"{part.path} has {part.shape[1]} of {part.dtype}. Convert it, or leave it out."
            )


def _facts(path: Path) -> dict[str, Any]:
    """What identifies a file to a run that resumes: its name, size, time of change and first bytes."""
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        first = hashlib.blake2b(file.read(_FIRST), digest_size=16).hexdigest()
    return {"file": path.name, "bytes": found.st_size, "changed": found.st_mtime_ns, "first": first}


class _Joined:
    """The rows of several files, one after another."""

    def __init__(self, who: str, parts: Sequence[Stored]) -> None:
        self._who, self._parts = who, parts
        self._ends = np.cumsum([0, *(part.shape[0] for part in parts)])

    def each(self, start: int, rows: int) -> Iterator[Tensor]:
        """Chunks from a row on."""
        for part, first, stop in zip(
            self._parts, self._ends[:-1].tolist(), self._ends[1:].tolist(), strict=True
        ):
            if start < stop:
                for chunk in part.each(max(0, start - first), rows):
                    yield as_tensor(self._who, chunk)

    def rows(self, ids: Array) -> Tensor:
        """Some rows, by rising numbers."""
        found = []
        for part, first, stop in zip(self._parts, self._ends[:-1], self._ends[1:], strict=True):
            here = ids[(ids >= first) & (ids < stop)] - first
            if len(here):
                assert part.rows is not None
                found.append(as_tensor(self._who, part.rows(here)))
        return torch.cat(found)
