"""Bytes of rows as lists, floats and codes, with all overhead."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from gpuzip._core.checks import whole
from gpuzip._core.rows import Matrix
from gpuzip.codecs.codes import Codes
from gpuzip.errors import GpuzipError


@dataclass(frozen=True)
class SizeRow:
    """Hold the bytes of N x D values in one form.

    Parameters
    ----------
    name : str
        The form.
    values : int
        Bytes of the numbers or codes.
    codec : int
        Bytes of the codec's state.
    overhead : int
        Bytes of the file's header, or of Python's objects.
    float32_ratio, float64_ratio : float
        Bytes of the values as float32 and as float64, over `nbytes`.
    """

    name: str
    values: int
    codec: int
    overhead: int
    float32_ratio: float
    float64_ratio: float

    @property
    def nbytes(self) -> int:
        """All bytes."""
        return self.values + self.codec + self.overhead


def size_table(
    x: Matrix | tuple[int, int], codes: Codes | Mapping[str, Codes] | Sequence[Codes]
) -> list[SizeRow]:
    """List the bytes of N x D values as Python lists, float64, float32 and as codes.

    Parameters
    ----------
    x : (N, D) or (D,) rows, or a shape (N, D)
        The rows.
    codes : Codes, sequence of Codes, or mapping of names to Codes
        Codes of N rows and D columns.

    Returns
    -------
    list of SizeRow
        One entry per form.

    Raises
    ------
    GpuzipError
        If shapes differ or no codes are given.

    Notes
    -----
    The header is measured on a file in a temporary folder. Python lists are one list of D floats per row.

    Examples
    --------
    >>> import gpuzip, torch
    >>> from gpuzip.sizes import size_table
    >>> x = torch.eye(8)
    >>> len(size_table(x, gpuzip.HalfQuantizer().fit(x).encode(x)))
    4
    """
    who = "size_table"
    n, d = _shape(who, x)
    lists = n * (sys.getsizeof([0.0] * d) + d * sys.getsizeof(0.5))
    rows = [
        _row("Python lists", (n, d), 8 * n * d, overhead=lists - 8 * n * d),
        _row("float64", (n, d), 8 * n * d),
        _row("float32", (n, d), 4 * n * d),
    ]
    for name, some in _named(who, codes).items():
        if some.shape != (n, d):
            raise GpuzipError(
                f"{who}: codes {name!r} must be of shape {(n, d)} like x; got {some.shape}. Pass codes of x."
            )
        rows.append(_row(name, (n, d), some.data.nbytes, some.codec.nbytes, _header_bytes(some)))
    return rows


def _row(name: str, shape: tuple[int, int], values: int, codec: int = 0, overhead: int = 0) -> SizeRow:
    singles = 4 * shape[0] * shape[1] / (values + codec + overhead)
    return SizeRow(name, values, codec, overhead, singles, 2 * singles)


def _shape(who: str, x: Matrix | tuple[int, int]) -> tuple[int, int]:
    shape = tuple(x.shape) if isinstance(x, Tensor | np.ndarray) else x
    if isinstance(x, Tensor | np.ndarray) and len(shape) == 1:
        shape = (1, *shape)
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise GpuzipError(f"{who}: x must be rows or their shape (N, D); got {shape!r}. Pass x.shape.")
    return whole(who, "N", shape[0]), whole(who, "D", shape[1])


def _named(who: str, codes: Codes | Mapping[str, Codes] | Sequence[Codes]) -> Mapping[str, Codes]:
    if isinstance(codes, Codes):
        codes = [codes]
    if isinstance(codes, Mapping):
        named = dict(codes)
    elif isinstance(codes, Sequence) and all(isinstance(some, Codes) for some in codes):
        named = {f"{some.codec.id}, {some.codec.code_size} bytes per row": some for some in codes}
        if len(named) < len(codes):
            raise GpuzipError(
                f"{who}: codes must have different names. Pass a dict: {{'one': ..., 'two': ...}}."
            )
    else:
        named = {}
    if not named or not all(isinstance(some, Codes) for some in named.values()):
        raise GpuzipError(
            f"{who}: codes must be Codes, or a list or mapping of at least one; got {type(codes).__name__}."
        )
    return named


def _header_bytes(codes: Codes) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return codes.save(Path(folder) / "codes.ezip").nbytes - codes.nbytes
