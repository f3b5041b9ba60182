"""Columns beside the rows: Parquet files by pyarrow, and filters on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpuzip._core.extras import needs
from gpuzip.dataset.ids import Array
from gpuzip.errors import DtypeError, FormatError, GpuzipError

Kinds = dict[str, str]


def as_table(who: str, columns: Any, n: int, like: Path | None) -> Any:
    """The pyarrow.Table of n rows, or None if there are no columns.

    like: a file of columns, whose names and types all rows must have; None if there are none yet.
    Raises DtypeError for what is no table, and GpuzipError for other columns than before.
    """
    if columns is None and like is None:
        return None
    with needs("pyarrow", "arrow"):
        import pyarrow as pa
    schema = None if like is None else schema_of(like)
    if columns is None:
        raise GpuzipError(f"{who}: columns must be {_listed(schema)}, as of earlier rows; got none.")
    table = _table(who, columns, pa)
    if table.num_rows != n:
        raise GpuzipError(f"{who}: columns must have {n} rows, one per row of x; got {table.num_rows}.")
    if len(set(table.column_names)) < table.num_columns:
        raise GpuzipError(f"{who}: columns must have distinct names; got {table.column_names}.")
    return _cast(who, table, schema, pa) if schema is not None else table if table.num_columns else None


def _table(who: str, columns: Any, pa: Any) -> Any:
    try:
        if isinstance(columns, dict):
            return pa.table(columns)
        if isinstance(columns, pa.RecordBatch):
            return pa.Table.from_batches([columns])
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DtypeError(
            f"{who}: columns must be a pyarrow Table, a RecordBatch or a dict of columns; got {error}."
        ) from error
    if isinstance(columns, pa.Table):
        return columns
    raise DtypeError(
        f"{who}: columns must be a pyarrow Table, a RecordBatch or a dict of columns; got "
        f"{type(columns).__name__}."
    )


def _cast(who: str, table: Any, schema: Any, pa: Any) -> Any:
    """The table in the types of earlier rows, where that changes no value."""
    if set(table.column_names) == set(schema.names):
        with suppress(pa.ArrowException):
            return table.select(schema.names).cast(schema)
    raise GpuzipError(
        f"{who}: columns must be {_listed(schema)}, as of earlier rows; got {_listed(table.schema)}."
    )


def schema_of(path: Path) -> Any:
    """The pyarrow.Schema of a file of columns. Raises FormatError."""
    with needs("pyarrow", "arrow"):
        import pyarrow.parquet as pq
    with _named(path):
        return pq.read_schema(path).remove_metadata()


def kinds_of(schema: Any) -> Kinds:
    """Arrow type by name of column, as the manifest has them."""
    return {field.name: str(field.type) for field in schema}


def _listed(schema: Any) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in kinds_of(schema).items())


def write_table(table: Any, out: BinaryIO) -> None:
    import pyarrow.parquet as pq

    in_order = table.select(sorted(table.column_names)).replace_schema_metadata()
    pq.write_table(in_order, out, use_compliant_nested_type=False)


def read_table(path: Path, n: int, names: Sequence[str] | None = None) -> Any:
    """The columns of n rows as a pyarrow.Table. Raises FormatError unless the file holds them."""
    with needs("pyarrow", "arrow"):
        import pyarrow.parquet as pq
    with _named(path):
        table = pq.read_table(path, columns=names, partitioning=None)
    if table.num_rows != n:
        raise FormatError(f"{path}: must hold columns of {n} rows; it has {table.num_rows}. Restore it.")
    return table


def matches(path: Path, n: int, expression: Any) -> Array:
    """(n,) bool: the rows for which an expression is true. Reads only the columns that it names."""
    with needs("pyarrow", "arrow"):
        import pyarrow as pa
        import pyarrow.dataset
    try:
        found = pa.dataset.dataset(path, format="parquet").to_table(columns={"is": expression})["is"]
    except (pa.ArrowException, TypeError) as error:
        raise GpuzipError(
            f"Dataset.search: filter must be an expression on the columns of the dataset; got {error}."
        ) from error
    if not pa.types.is_boolean(found.type) or len(found) != n:
        raise GpuzipError(f"Dataset.search: filter must be true or false for each row; got {found.type}.")
    return np.asarray(found.fill_null(False).combine_chunks().to_numpy(zero_copy_only=False), bool)


def is_expression(value: Any) -> bool:
    """Whether this is a pyarrow.compute.Expression."""
    return type(value).__module__.partition(".")[0] == "pyarrow" and type(value).__name__ == "Expression"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, ValueError) as error:
        raise FormatError(f"{path}: must be readable as Parquet ({error}). Restore it.") from error
