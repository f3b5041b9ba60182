"""Parquet: a column of lists of one length, read batch by batch. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpuzip._core.extras import needs
from gpuzip.errors import FormatError
from gpuzip.interop.matrices.blocks import Blocks
from gpuzip.interop.matrices.lists import alike, batch_rows, column_of, dtype_of, named, rows_of
from gpuzip.interop.matrices.stored import Stored

Array = np.ndarray[Any, Any]

_BUFFER = 1 << 20  # bytes of a column that are read at a time, in place of a row group's


def find(path: Path, name: str | None = None) -> Stored:
    """The column of that name, or the only one of lists."""
    pa, parquet = _pyarrow()
    with named(path, pa, "parquet"), parquet.ParquetFile(path) as file:
        field = column_of(path, pa, file.schema_arrow, name)
        n = file.metadata.num_rows
    first = next(_batches(path, field, 0, 1), np.empty((0, 0)))
    shape = (n, int(first.shape[1]))
    return Stored(path, shape, dtype_of(field), partial(_each, path, field, shape))


def _each(path: Path, field: Any, shape: tuple[int, int], start: int, rows: int) -> Iterator[Array]:
    (n, d), done = shape, start
    for block in alike(path, d, _batches(path, field, start, rows)):
        yield block
        done += len(block)
    if done != n:
        raise FormatError(f"{path}: must have {n:,} rows, as it says; it has {done:,}. Make it again.")


def _batches(path: Path, field: Any, start: int, rows: int) -> Iterator[Array]:
    """Batches from a row on. Row groups before it are not read."""
    pa, parquet = _pyarrow()
    with (
        named(path, pa, "parquet"),
        parquet.ParquetFile(path, memory_map=False, buffer_size=_BUFFER, pre_buffer=False) as file,
    ):
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        ends = np.cumsum([0, *sizes])
        group = int(np.searchsorted(ends, start, side="right")) - 1
        skip = start - int(ends[group])
        left = list(range(group, len(sizes)))
        if not left:
            return
        for batch in file.iter_batches(batch_rows(field, rows), row_groups=left, columns=[field.name]):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield rows_of(path, field, batch.column(0).slice(skip))
            skip = 0


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
