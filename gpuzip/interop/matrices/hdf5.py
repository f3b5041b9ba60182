"""HDF5: a dataset of two dimensions, read slice by slice. Needs h5py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpuzip._core.checks import printable
from gpuzip._core.extras import needs
from gpuzip.errors import FormatError
from gpuzip.interop.matrices.stored import Stored

Array = np.ndarray[Any, Any]

_SMALLEST = 1100  # times that a filter can make bytes smaller; more is a lie


def find(path: Path, name: str | None = None) -> Stored:
    """The dataset of that name, such as "train" or "group/x", or the only matrix of the file."""
    with _opened(path) as file:
        name = _only(path, file) if name is None else name
        found = _dataset(path, file, name)
        shape, dtype = tuple(map(int, found.shape)), found.dtype
        _check(path, name, found)
    return Stored(path, shape, dtype.newbyteorder("=").name, partial(_each, path, name))


def _each(path: Path, name: str, start: int, rows: int) -> Iterator[Array]:
    with _opened(path) as file:
        found = _dataset(path, file, name)
        for first in range(start, len(found), rows):
            part = found[first : first + rows]
            yield part.astype(part.dtype.newbyteorder("="), copy=False)


def _only(path: Path, file: Any) -> str:
    """The name of the only matrix: links are not followed."""
    names: list[str] = []

    def look(name: str, item: Any) -> None:
        if getattr(item, "ndim", None) == 2:
            names.append(name)

    file.visititems(look)
    if len(names) != 1:
        raise FormatError(
            f"{path}: one of its datasets must be named: {', '.join(sorted(names)[:20]) or '(it has none)'}; "
            "got None."
        )
    return names[0]


def _dataset(path: Path, file: Any, name: str) -> Any:
    """The dataset, if the file itself holds it: no link leads out of the file."""
    import h5py

    at, parts = file, [part for part in name.split("/") if part]
    for part in parts:
        link = at.get(part, getlink=True) if isinstance(at, h5py.Group) else None
        if not isinstance(link, h5py.HardLink):
            raise FormatError(
                f"{path}: must hold a dataset {name!r}, and no link to one; it has "
                f"{', '.join(sorted(file)[:20])}. Correct the name."
            )
        at = at[part]
    if not isinstance(at, h5py.Dataset):
        raise FormatError(f"{path}: {name!r} must be a dataset; it is a group. Name a dataset of it.")
    return at


def _check(path: Path, name: str, found: Any) -> None:
    """Raise FormatError for values that are elsewhere, or that the file has no room for."""
    if found.external or found.is_virtual:
        raise FormatError(f"{path}: {name!r} must be in the file; its values are in others. Copy them in.")
    if found.dtype.hasobject or found.dtype.kind not in "fiu":
        raise FormatError(f"{path}: {name!r} must hold numbers; it holds {found.dtype}. Convert it.")
    there = found.id.get_storage_size()
    packed = found.id.get_create_plist().get_nfilters() > 0
    if found.nbytes > there * (_SMALLEST if packed else 1) or there > path.stat().st_size:
        raise FormatError(
            f"{path}: {name!r} must have {found.nbytes:,} bytes of values for shape {found.shape}; the file "
            f"has {there:,}. Write all rows, or make it again."
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with needs("h5py", "hdf5"):
        import h5py
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FormatError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise FormatError(
            f"{path}: cannot be read as HDF5 ({printable(str(error)):.200}). Restore it, or make it again."
        ) from error
