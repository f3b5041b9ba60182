"""Datasets of Ray Data, compressed by its workers into a Dataset. Needs ray."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpuzip._core.checks import whole
from gpuzip._core.extras import needs
from gpuzip.codecs import Codec, Quantizer
from gpuzip.dataset import Dataset
from gpuzip.distributed.codec import check_codec
from gpuzip.distributed.encoder import Encoder
from gpuzip.errors import GpuzipError
from gpuzip.interop.arrow import from_arrow
from gpuzip.storage.folder import MANIFEST

_WHO = "compress_dataset"
_CODES = "gpuzip.codes"


def compress_dataset(
    ds: Any,
    column: str,
    path: str | os.PathLike[str],
    codec: Codec,
    *,
    ids: str = "id",
    columns: Sequence[str] = (),
    rows_per_shard: int = 1 << 18,
    batch_size: int = 4096,
    device: str | None = None,
    **options: Any,
) -> Dataset:
    """Compress a column of a Ray dataset into a `gpuzip.Dataset`, or go on where an earlier call ended.

    Parameters
    ----------
    ds : ray.data.Dataset
        The rows, such as ``ray.data.read_parquet(folder)``.
    column : str
        Name of the column of embeddings.
    path : str or path-like
        Folder of the `gpuzip.Dataset`, on the disk of this process. If it holds one, its codec must be codec;
        rows whose ids it has are neither encoded nor added again.
    codec : Codec
        The fitted codec.
    ids : str, default "id"
        Name of the column of ids: whole numbers or strings, distinct.
    columns : sequence of str, optional
        Names of columns to be stored beside the rows. Others are not read.
    rows_per_shard : int, default 262144
        Rows of each shard, which is on disk for good once it is complete. This process holds two.
    batch_size : int, default 4096
        Rows that a worker encodes at a time.
    device : str, optional
        As in `Encoder`. With GPUs, pass ``num_gpus=1`` too.
    **options
        Passed on to `map_batches`: concurrency, num_cpus, num_gpus, memory, ...

    Returns
    -------
    Dataset
        The dataset, with one row for each row of ds, in the order in which workers end.

    Raises
    ------
    GpuzipError
        If a column is missing, the ids are of another kind, or the codecs differ.
    MissingDependencyError
        If ray is not installed.

    Notes
    -----
    Ray starts the tasks of a worker that dies again, and hands on only the results of tasks that end: each
    row comes once. If this process dies, call it again: complete shards stay. Then the sorted ids that are
    done are in memory, 8 bytes each, once per machine.
    """
    with needs("ray", "ray"):
        import ray
    rows_per_shard, batch_size = (
        whole(_WHO, "rows_per_shard", rows_per_shard),
        whole(_WHO, "batch_size", batch_size),
    )
    fitted = check_codec(_WHO, codec)
    kind = _kind_of(ds.schema(), ids, column, columns)
    data = _opened(path, fitted, kind)
    done = ray.put(np.sort(np.asarray(data.ids))) if len(data) else None
    worker = _Left(Encoder(fitted, column, output=_CODES, device=device), ids, done)
    codes = ds.select_columns([ids, column, *columns]).map_batches(
        worker, batch_format="pyarrow", batch_size=batch_size, **options
    )
    for table in codes.iter_batches(batch_size=rows_per_shard, batch_format="pyarrow", prefetch_batches=0):
        given = table[ids].to_pylist() if kind == "string" else table[ids].to_numpy()
        beside = table.select(list(columns)) if columns else None
        data.append(from_arrow(table, column=_CODES, codec=codec), given, beside)
    return data


class _Left:
    """What a worker does: encode the rows of a batch whose ids are not in done, a ray.ObjectRef or None."""

    def __init__(self, encoder: Encoder, ids: str, done: Any) -> None:
        self._encoder, self._ids, self._done = encoder, ids, done

    def __call__(self, table: Any) -> Any:
        if self._done is not None:
            table = table.filter(~_are_in(self._done_ids(), table[self._ids].to_numpy()))
        return self._encoder(table)

    def _done_ids(self) -> Any:
        import ray

        return ray.get(self._done)


def _are_in(done: Any, ids: Any) -> Any:
    """(n,) bool: which ids are in the sorted array, which is not empty."""
    return done[np.minimum(np.searchsorted(done, ids), len(done) - 1)] == ids


def _kind_of(schema: Any, ids: str, column: str, columns: Sequence[str]) -> Any:
    types = {} if schema is None else dict(zip(schema.names, map(str, schema.types), strict=True))
    missing = [name for name in (ids, column, *columns) if name not in types]
    if missing:
        raise GpuzipError(f"{_WHO}: column, ids and columns must be of {list(types)}; got {missing}.")
    if types[ids] in ("string", "large_string"):
        return "string"
    if types[ids].removeprefix("u").startswith("int"):
        return "int64"
    raise GpuzipError(f"{_WHO}: ids must be whole numbers or strings; {ids!r} holds {types[ids]}.")


def _opened(path: str | os.PathLike[str], codec: Quantizer, kind: Any) -> Dataset:
    if not Path(path, MANIFEST).exists():
        return Dataset.create(path, codec, ids=kind)
    data = Dataset.open(path)
    if not codec.same_as(data.codec):
        raise GpuzipError(
            f"{_WHO}: codec must be that of the dataset in {path}; it is another. Name another folder."
        )
    return data
