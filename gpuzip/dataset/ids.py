"""Ids of rows: whole numbers or strings as callers give them, and how a shard keeps and finds its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from gpuzip.errors import DtypeError, FormatError, GpuzipError
from gpuzip.storage.tensors import read_tensors, write_tensors

Array = np.ndarray[Any, Any]

#: Ids as callers give them.
Given = Sequence[int] | Sequence[str] | Array | Tensor

_NUMBER = np.dtype("<i8")
_BOTH = np.iinfo(np.int64)


def as_ids(who: str, kind: str | None, ids: Any) -> Array:
    """(n,) int64 array, or one of str objects for the kind "string". Raises DtypeError or GpuzipError."""
    return _strings(who, ids) if kind == "string" else _numbers(who, ids)


def none(kind: str | None) -> Array:
    return np.empty(0, object if kind == "string" else np.int64)


def check_distinct(who: str, ids: Array) -> None:
    """Raise GpuzipError, which names it, for an id that comes twice."""
    if len(set(ids.tolist())) == len(ids):
        return
    seen: set[Any] = set()
    for id in ids.tolist():
        if id in seen:
            raise GpuzipError(f"{who}: ids must be distinct; got {id!r} twice. Nothing was written.")
        seen.add(id)


def _numbers(who: str, ids: Any) -> Array:
    array = _array(who, ids.detach().cpu().numpy() if isinstance(ids, Tensor) else ids)
    if array.size == 0 and not isinstance(ids, Tensor | np.ndarray):
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise DtypeError(f"{who}: ids must be a list or array of whole numbers; got {ids!r:.200}.")
    if array.dtype.kind == "u" and array.size and array.max() > _BOTH.max:
        raise GpuzipError(f"{who}: ids must be at most {_BOTH.max}; got {array.max()}.")
    return array.astype(np.int64)


def _array(who: str, ids: Any) -> Array:
    try:
        return np.asarray(ids)
    except ValueError as error:  # lists of different lengths
        raise DtypeError(f"{who}: ids must be a list or array of whole numbers; got {ids!r:.200}.") from error


def _strings(who: str, ids: Any) -> Array:
    listed = next((getattr(ids, name)() for name in ("to_pylist", "tolist") if hasattr(ids, name)), ids)
    is_one = isinstance(listed, str) or not hasattr(listed, "__iter__")
    texts = [] if is_one else list(listed)
    if is_one or not all(isinstance(text, str) for text in texts):
        raise DtypeError(f"{who}: ids must be a list or array of strings; got {ids!r:.200}.")
    found = np.empty(len(texts), object)
    found[:] = [str(text) for text in texts]
    for text in found:
        _encoded(who, text)
    return found


def _encoded(who: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise GpuzipError(f"{who}: ids must be text that UTF-8 can hold; got {text!r:.200}.") from error


class IdColumn(Protocol):
    """The ids of a shard's rows, removed ones too."""

    def take(self, rows: Array) -> Array:
        """Ids of some rows."""

    def find(self, ids: Array) -> Array:
        """Row of each id, -1 for those that no row has: int64."""


class Consecutive:
    """n ids from `first` on."""

    def __init__(self, first: int, n: int) -> None:
        self._first, self._n = first, n

    def take(self, rows: Array) -> Array:
        return rows + self._first

    def find(self, ids: Array) -> Array:
        inside = (ids >= self._first) & (ids < self._first + self._n)
        return np.where(inside, np.where(inside, ids, self._first) - self._first, -1)


class Numbers:
    """Whole numbers in any order. The first look-up sorts them: 16 bytes per row."""

    def __init__(self, ids: Array) -> None:
        self._ids = ids

    def take(self, rows: Array) -> Array:
        return self._ids[rows].astype(np.int64)

    @cached_property
    def _sorted(self) -> tuple[Array, Array]:
        order = np.argsort(self._ids, kind="stable")
        return self._ids[order], order

    def find(self, ids: Array) -> Array:
        known, order = self._sorted
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[at] == ids, order[at], -1)


class Texts:
    """Strings. The first look-up makes a dict of them: some 150 bytes per row."""

    def __init__(self, path: Path, text: Array, ends: Array) -> None:
        self._path, self._text, self._ends = path, text, ends

    def take(self, rows: Array) -> Array:
        found = np.empty(len(rows), object)
        starts = np.where(rows > 0, self._ends[np.maximum(rows, 1) - 1], 0).tolist()
        try:
            found[:] = [
                self._text[start:end].tobytes().decode()
                for start, end in zip(starts, self._ends[rows].tolist(), strict=True)
            ]
        except UnicodeDecodeError as error:
            raise FormatError(f"{self._path}: ids must be UTF-8. gpuzip did not write it.") from error
        return found

    @cached_property
    def _rows(self) -> dict[str, int]:
        ids = self.take(np.arange(len(self._ends)))
        return {id: row for row, id in enumerate(ids.tolist())}

    def find(self, ids: Array) -> Array:
        return np.fromiter((self._rows.get(id, -1) for id in ids.tolist()), np.int64, len(ids))


def write_ids(ids: Array, out: BinaryIO) -> None:
    """Write what `read_ids` reads."""
    if ids.dtype != object:
        write_tensors(out, {"ids": _bytes_of(ids.astype(_NUMBER))})
        return
    encoded = [text.encode() for text in ids]
    ends = np.cumsum([len(text) for text in encoded], dtype=_NUMBER)
    text = torch.from_numpy(np.frombuffer(b"".join(encoded), np.uint8).copy())
    write_tensors(out, {"ends": _bytes_of(ends), "text": text})


def _bytes_of(numbers: Array) -> Tensor:
    return torch.from_numpy(numbers.view(np.uint8).reshape(-1, 8))


def read_ids(path: Path, kind: str | None, n: int) -> IdColumn:
    """The ids of n rows, mapped. Raises FormatError unless the file holds them."""
    tensors = {name: tensor.numpy() for name, tensor in read_tensors(path)[0].items()}
    names = {"ends", "text"} if kind == "string" else {"ids"}
    numbers = tensors.get("ends" if kind == "string" else "ids")
    fits = set(tensors) == names and all(array.dtype == np.uint8 for array in tensors.values())
    if not fits or numbers is None or numbers.shape != (n, 8):
        raise FormatError(f"{path}: must hold the ids of {n} rows. gpuzip did not write it.")
    values = numbers.reshape(-1).view(_NUMBER)
    if kind != "string":
        return Numbers(values)
    text = tensors["text"]
    ordered = bool((np.diff(values) >= 0).all()) and values[0] >= 0 and values[-1] == text.size
    if text.ndim != 1 or not ordered:
        raise FormatError(f"{path}: must hold the ids of {n} rows. gpuzip did not write it.")
    return Texts(path, text, values)
