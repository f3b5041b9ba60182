"""Arrow's IPC files and streams, Feather among them: a column of lists, batch by batch. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpuzip._core.extras import needs
from gpuzip.interop.matrices.lists import alike, batch_rows, column_of, dtype_of, named, rows_of
from gpuzip.interop.matrices.stored import Stored

Array = np.ndarray[Any, Any]

_MAGIC = b"ARROW1"  # how a file begins; a stream begins otherwise


def find(path: Path, name: str | None = None) -> Stored:
    """The column of that name, or the only one of lists. Counts rows, of which nothing says how many."""
    pa = _pyarrow()
    with named(path, pa, "arrow"), ExitStack() as stack:
        schema, batches = _opened(path, pa, stack, None, mapped=True)
        field = column_of(path, pa, schema, name)
        n = sum(batch.num_rows for batch in batches)
    first = next((block for block in _batches(path, field, 0, 1) if len(block)), np.empty((0, 0)))
    shape = (n, int(first.shape[1]))
    return Stored(path, shape, dtype_of(field), partial(_each, path, field, shape[1]))


def _each(path: Path, field: Any, d: int, start: int, rows: int) -> Iterator[Array]:
    return alike(path, d, _batches(path, field, start, rows))


def _batches(path: Path, field: Any, start: int, rows: int) -> Iterator[Array]:
    """Parts of record batches from a row on. A record batch is read as a whole, and its column alone."""
    pa = _pyarrow()
    with named(path, pa, "arrow"), ExitStack() as stack:
        schema, batches = _opened(path, pa, stack, field.name, mapped=False)
        step, skip = batch_rows(field, rows), start
        for batch in batches:
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            column = batch.column(schema.names.index(field.name))
            column.validate(full=True)
            for first in range(skip, batch.num_rows, step):
                yield rows_of(path, field, column.slice(first, step))
            skip = 0


def _opened(path: Path, pa: Any, stack: ExitStack, column: str | None, *, mapped: bool) -> tuple[Any, Any]:
    """The schema and the record batches, of one column or of all."""
    with open(path, "rb") as file:
        is_file = file.read(len(_MAGIC)) == _MAGIC
    source = stack.enter_context(pa.memory_map(str(path)) if mapped else pa.OSFile(str(path)))
    if not is_file:
        reader = stack.enter_context(pa.ipc.open_stream(source))
        return reader.schema, iter(reader)
    reader = stack.enter_context(pa.ipc.open_file(source))
    if column is not None:
        options = pa.ipc.IpcReadOptions(included_fields=[reader.schema.get_field_index(column)])
        reader = stack.enter_context(pa.ipc.open_file(source, options=options))
    return reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))


def _pyarrow() -> Any:
    with needs("pyarrow", "arrow"):
        import pyarrow
        import pyarrow.ipc
    return pyarrow
