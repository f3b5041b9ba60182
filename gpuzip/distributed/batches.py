"""Batches of data engines, of which one column of embeddings becomes one of codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gpuzip._core.inputs import as_matrix
from gpuzip._core.rows import Matrix
from gpuzip.codecs.codes import Codes
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.interop.arrow import array_of, pyarrow

Encode = Callable[[Matrix], Codes]


def encoded(who: str, batch: Any, column: str, output: str, d: int, encode: Encode) -> Any:
    """The batch with codes in place of its embeddings: as many rows, in a batch of the same kind."""
    package = type(batch).__module__.partition(".")[0]
    if isinstance(batch, dict):
        return _of_dict(who, batch, column, output, d, encode)
    if package == "pandas":
        return _of_frame(who, batch, column, output, d, encode)
    if package == "daft" and hasattr(batch, "to_arrow"):
        batch = batch.to_arrow()
    elif package != "pyarrow":
        raise DtypeError(
            f"{who}: a batch must be a pyarrow table, record batch or array, a dict of numpy arrays, a "
            f"pandas data frame, a daft series, or an iterator over these; got {type(batch).__name__}."
        )
    if hasattr(batch, "null_count"):
        return _array(encode(_matrix(who, column, batch, d)))
    return _of_table(who, batch, column, output, d, encode)


def in_spark(batch: Any, output: str) -> Any:
    """Spark has no binary of fixed size."""
    if not hasattr(batch, "schema"):
        return batch
    place = batch.schema.get_field_index(output)
    return batch.set_column(place, output, batch.column(place).cast(pyarrow().binary()))


def _of_dict(
    who: str, batch: dict[str, Any], column: str, output: str, d: int, encode: Encode
) -> dict[str, Any]:
    kept = _others(who, list(batch), column, output)
    codes = encode(_matrix(who, column, batch[column], d))
    return {name: batch[name] for name in kept} | {output: codes.packed.data[:].cpu().numpy()}


def _of_frame(who: str, batch: Any, column: str, output: str, d: int, encode: Encode) -> Any:
    kept = _others(who, list(batch.columns), column, output)
    rows = encode(_matrix(who, column, batch[column], d)).packed.data[:].cpu().numpy()
    codes = np.empty(len(rows), object)
    codes[:] = [row.tobytes() for row in rows]
    return batch[kept].assign(**{output: codes})


def _of_table(who: str, batch: Any, column: str, output: str, d: int, encode: Encode) -> Any:
    kept = _others(who, batch.schema.names, column, output)
    codes = _array(encode(_matrix(who, column, batch.column(column), d)))
    columns = [*(batch.column(name) for name in kept), codes]
    fields = [*(batch.schema.field(name) for name in kept), pyarrow().field(output, codes.type)]
    return type(batch).from_arrays(columns, schema=pyarrow().schema(fields, batch.schema.metadata))


def _array(codes: Codes) -> Any:
    return array_of(pyarrow(), codes, "binary")


def _others(who: str, names: Iterable[Any], column: str, output: str) -> list[Any]:
    names = list(names)
    if column not in names:
        raise GpuzipError(
            f"{who}: column must be one of {names}; got {column!r}. Pass column= with its name."
        )
    kept = [name for name in names if name != column]
    if output in kept:
        raise GpuzipError(f"{who}: output must be a new name; the batch has {output!r}. Pass another.")
    return kept


def _matrix(who: str, column: str, values: Any, d: int) -> Matrix:
    """(n, d) floats of a column."""
    if len(values) == 0:
        return np.empty((0, d), np.float32)
    if hasattr(values, "combine_chunks"):
        values = values.combine_chunks()
    if hasattr(values, "null_count"):
        values = getattr(values, "storage", values)  # of an extension type, such as Ray's tensors
    if isinstance(values, np.ndarray) and values.dtype == object:
        values = list(values)
    return as_matrix(who, column, values)
