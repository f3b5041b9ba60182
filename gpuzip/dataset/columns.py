"""Columns beside the rows: Parquet files by pyarrow, and filters on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gpuzip._core.extras import needs
from gpuzip.dataset.ids import Array
from gpuzip.errors import DtypeError, FormatError, GpuzipError

Kinds = dict[str, str]


def as_table(who: str, columns: Any, n: int, known: Kinds | None) -> Any:
    """The pyarrow.Table of n rows, or None if there are no columns. known: those of earlier rows.

    Raises DtypeError for what is no table, and GpuzipError for other columns than before.
    """
    if columns is None and not known:
        return None
    with needs("pyarrow", "arrow"):
        import pyarrow as pa
    if columns is None:
        raise GpuzipError(f"{who}: columns must be {_listed(known)}, as of earlier rows; got none.")
    table = _table(who, columns, pa)
    if table.num_rows != n:
        raise GpuzipError(f"{who}: columns must have {n} rows, one per row of x; got {table.num_rows}.")
    if known is not None and set(table.column_names) == set(known):
        table = _cast(who, table.select(list(known)), known)
    if len(set(table.column_names)) < table.num_columns:
        raise GpuzipError(f"{who}: columns must have distinct names; got {table.column_names}.")
    if known is not None and kinds_of(table) != known:
        raise GpuzipError(
            f"{who}: columns must be {_listed(known)}, as of earlier rows; got {_listed(kinds_of(table))}."
        )
    return table if table.num_columns else None


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


def _cast(who: str, table: Any, known: Kinds) -> Any:
    """The table with columns of nulls, which have no type of their own, in the types of earlier rows."""
    import pyarrow as pa

    for number, name in enumerate(table.column_names):
        column = table.column(number)
        if pa.types.is_null(column.type) and known[name] != "null":
            try:
                kind = pa.type_for_alias(known[name])
            except ValueError as error:
                raise GpuzipError(
                    f"{who}: column {name!r} must be of type {known[name]}; got null. Name its type."
                ) from error
            table = table.set_column(number, name, column.cast(kind))
    return table


def kinds_of(table: Any) -> Kinds:
    """Arrow type by name of column, in the order of names, as the manifest has them."""
    return {} if table is None else {field.name: str(field.type) for field in sorted(table.schema, key=_name)}


def _name(field: Any) -> str:
    return str(field.name)


def _listed(kinds: Kinds | None) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in (kinds or {}).items()) or "none"


def write_table(table: Any, out: BinaryIO) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table.select(sorted(table.column_names)), out)


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
