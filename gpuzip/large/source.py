"""What a caller compresses, as chunks of rows: a matrix, chunks from a program, or one of `files.py`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.inputs import as_matrix
from gpuzip._core.rows import BLOCK_BYTES, Matrix, Rows, check_floats
from gpuzip.errors import GpuzipError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Source:
    """Rows that come chunk by chunk.

    Attributes
    ----------
    n : int or None
        Rows; None where only the last one tells.
    d : int
        Columns.
    dtype : torch.dtype
        Dtype of the values.
    each : callable
        (first row, rows at most) to chunks in order. A chunk may have fewer rows, or more.
    facts : dict
        What identifies the source to a run that resumes; JSON.
    rows : callable, optional
        Rising row numbers to these rows, where they are read without the others.
    once : bool
        Whether `each` may be called once only.
    """

    n: int | None
    d: int
    dtype: torch.dtype
    each: Callable[[int, int], Iterator[Tensor]]
    facts: dict[str, Any]
    rows: Callable[[Array], Tensor] | None = None
    once: bool = False


def as_tensor(who: str, x: Any, d: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """(n, D) floats on the CPU. d and dtype: those of the first chunk. Raises GpuzipError or DtypeError."""
    matrix = as_matrix(who, "a chunk", x)
    kind = check_floats(f"{who}: a chunk", matrix)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise GpuzipError(f"{who}: a chunk must be 2-D (n, D); got shape {tuple(matrix.shape)}. Reshape it.")
    if (d is not None and matrix.shape[1] != d) or (dtype is not None and kind != dtype):
        raise GpuzipError(
            f"{who}: all chunks must have {d} columns of {dtype}, as the first one; got {matrix.shape[1]} of "
            f"{kind}. Convert them."
        )
    if isinstance(matrix, Tensor):
        return matrix.detach().cpu()
    if matrix.dtype.kind != "f":  # ml_dtypes' bfloat16
        return torch.from_numpy(np.require(matrix, np.float32, ["C", "W"])).to(kind)
    return torch.from_numpy(np.require(matrix, matrix.dtype.newbyteorder("="), ["C", "W"]))


def of_matrix(who: str, x: Matrix) -> Source:
    """A matrix in memory or mapped."""
    Rows(who, x, name="src")  # checks it
    first = as_tensor(who, x[:1])
    step = max(1, BLOCK_BYTES // (4 * x.shape[1]))

    def each(start: int, rows: int) -> Iterator[Tensor]:
        return (as_tensor(who, x[at : at + step]) for at in range(start, len(x), step))

    def some(ids: Array) -> Tensor:
        return as_tensor(who, x[torch.from_numpy(ids).to(x.device) if isinstance(x, Tensor) else ids])

    n, d = map(int, x.shape)
    return Source(n, d, first.dtype, each, _facts(first, n), some)


def of_chunks(who: str, src: Any) -> Source:
    """Chunks of an iterable, or of what a callable returns: a generator is read once, others anew."""
    again = src if callable(src) else lambda: src
    chunks = _iterator(who, again())
    once = chunks is src
    head = list(_until_rows(who, chunks))
    if not head or not len(head[-1]):
        raise GpuzipError(f"{who}: src must have at least one row; its chunks have none.")
    first = head[-1]
    d, dtype = int(first.shape[1]), first.dtype

    def each(start: int, rows: int) -> Iterator[Tensor]:
        rest = chain(head, chunks) if once else _iterator(who, again())
        for chunk in rest:
            found = as_tensor(who, chunk, d, dtype)
            if start < len(found):
                yield found[start:]
            start = max(0, start - len(found))

    return Source(None, d, dtype, each, _facts(first, None), once=once)


def _until_rows(who: str, chunks: Iterator[Any]) -> Iterator[Tensor]:
    """Chunks up to the first one that has rows."""
    for chunk in chunks:
        found = as_tensor(who, chunk)
        yield found
        if len(found):
            return


def _iterator(who: str, chunks: Any) -> Iterator[Any]:
    if isinstance(chunks, str | os.PathLike) or not isinstance(chunks, Iterable):
        raise GpuzipError(
            f"{who}: src must be a file, a folder, a list of files, a matrix, or chunks of rows; got "
            f"{type(chunks).__name__}. Pass an iterable of matrices, or a function that returns one."
        )
    return iter(chunks)


def _facts(first: Tensor, n: int | None) -> dict[str, Any]:
    return {"n": n, "d": int(first.shape[1]), "dtype": name_of(first.dtype), "first": digest(first[:1])}


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def digest(rows: Tensor) -> str:
    """BLAKE2b-128 of the values of some rows."""
    data = rows.contiguous().view(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(data.data, digest_size=16).hexdigest()


def recut(chunks: Iterable[Tensor], lengths: Iterable[int]) -> Iterator[Tensor]:
    """The rows of chunks in pieces of these lengths; the last piece may be shorter. Copies where it must."""
    wanted = iter(lengths)
    parts: list[Tensor] = []
    missing = next(wanted)
    for chunk in chunks:
        while len(chunk):
            parts.append(chunk[:missing])
            missing -= len(parts[-1])
            chunk = chunk[len(parts[-1]) :]
            if missing == 0:
                yield parts[0] if len(parts) == 1 else torch.cat(parts)
                parts, missing = [], next(wanted)
    if parts:
        yield torch.cat(parts)
