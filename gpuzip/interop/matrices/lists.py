"""Columns of lists in Arrow's types: which column is meant, and its rows as arrays. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gpuzip._core.inputs import as_matrix
from gpuzip.errors import FormatError

Array = np.ndarray[Any, Any]

#: Bytes of rows that are read at a time, and most rows.
BATCH_BYTES, BATCH_ROWS = 8 << 20, 8192

_FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}


def column_of(path: Path, pa: Any, schema: Any, name: str | None) -> Any:
    """The field of that name, or the only one of lists. Raises FormatError."""
    lists = [field.name for field in schema if _is_list(pa, field.type)]
    if name is None and len(lists) == 1:
        name = str(lists[0])
    if name is None or name not in lists:
        raise FormatError(
            f"{path}: one of its columns of lists must be named: "
            f"{', '.join(lists[:20]) or '(it has none)'}; got {name!r}."
        )
    return schema.field(name)


def _is_list(pa: Any, kind: Any) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def dtype_of(field: Any) -> str:
    """Name of the dtype of the rows: that of the floats in the lists, or float32."""
    return _FLOATS.get(str(field.type.value_type), "float32")


def batch_rows(field: Any, rows: int) -> int:
    """Rows of a batch, at most `rows`: fewer where the lists are long."""
    d = getattr(field.type, "list_size", 0)
    return max(1, min(rows, BATCH_ROWS, BATCH_BYTES // (4 * d) if d else BATCH_ROWS))


def rows_of(path: Path, field: Any, column: Any) -> Array:
    """A column of lists as (n, d). Raises GpuzipError for nulls and for lists of different lengths."""
    if not len(column):
        return np.empty((0, getattr(field.type, "list_size", 0)), dtype_of(field))
    return np.asarray(as_matrix(str(path), field.name, column)).astype(dtype_of(field), copy=False)


def alike(path: Path, d: int, blocks: Iterator[Array]) -> Iterator[Array]:
    """The blocks. Raises FormatError for one whose rows do not have d values."""
    for block in blocks:
        if len(block) and block.shape[1] != d:
            raise FormatError(
                f"{path}: lists must have {d} values each; got {block.shape[1]}. Drop those rows."
            )
        yield block


@contextmanager
def named(path: Path, pa: Any, kind: str) -> Iterator[None]:
    """What pyarrow raises for a damaged file, as FormatError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FormatError(
            f"{path}: cannot be read as {kind} ({error}). Restore it, or make it again."
        ) from error
