"""Parquet: a column of lists of one length, read batch by batch. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpuzip._core.extras import needs
from gpuzip._core.inputs import as_matrix
from gpuzip._core.rows import Matrix
from gpuzip.errors import FormatError
from gpuzip.interop.matrices.blocks import Blocks
from gpuzip.interop.matrices.spool import spooled_rows

Array = np.ndarray[Any, Any]

_BATCH = 8192  # rows


def read(path: Path, name: str | None = None) -> Matrix:
    """The column of that name, or the only one of lists, as float32 in a temporary file that is mapped."""
    pa, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            column = _column(path, pa, file.schema_arrow, name)
            blocks = _blocks(path, file, column)
            first = next(blocks, np.empty((0, 0), np.float32))
            return spooled_rows(_all(path, first, blocks), first.shape[1])
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise FormatError(
            f"{path}: cannot be read as parquet ({error}). Restore it, or make it again."
        ) from error


def _column(path: Path, pa: Any, schema: Any, name: str | None) -> str:
    lists = [item.name for item in schema if _is_list(pa, item.type)]
    if name is None and len(lists) == 1:
        return str(lists[0])
    if name is None or name not in lists:
        raise FormatError(
            f"{path}: one of its columns of lists must be named: "
            f"{', '.join(lists[:20]) or '(it has none)'}; got {name!r}."
        )
    return name


def _is_list(pa: Any, kind: Any) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _blocks(path: Path, file: Any, column: str) -> Iterator[Array]:
    for batch in file.iter_batches(_BATCH, columns=[column]):
        yield np.asarray(as_matrix(str(path), column, batch.column(0)))


def _all(path: Path, first: Array, blocks: Iterator[Array]) -> Iterator[Array]:
    yield first
    for block in blocks:
        if block.shape[1:] != first.shape[1:]:
            raise FormatError(
                f"{path}: lists must have {first.shape[1]} values each; got {block.shape[1]}. Drop "
                "those rows."
            )
        yield block


def write(out: BinaryIO, blocks: Blocks) -> None:
    """One column, `x`, of lists of fixed size."""
    pa, parquet = _pyarrow()
    kind = pa.list_(pa.from_numpy_dtype(blocks.numpy_dtype), blocks.d)
    schema = pa.schema([("x", kind)])
    with parquet.ParquetWriter(out, schema) as writer:
        for block in blocks.arrays():
            column = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), type=kind)
            writer.write_batch(pa.record_batch([column], schema=schema))


def _pyarrow() -> tuple[Any, Any]:
    with needs("pyarrow", "arrow"):
        import pyarrow
        import pyarrow.parquet
    return pyarrow, pyarrow.parquet
