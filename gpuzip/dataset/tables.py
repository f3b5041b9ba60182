"""Columns of some rows of several shards, as one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuzip._core.extras import needs
from gpuzip.dataset.columns import read_table
from gpuzip.dataset.ids import Array
from gpuzip.dataset.shards import Shard


def columns_of(parts: Sequence[tuple[Shard, Array]]) -> Any:
    """The columns of some rows of shards, one after another, as a pyarrow.Table; None if there are none."""
    if not parts or parts[0][0].entry.columns is None:
        return None
    with needs("pyarrow", "arrow"):
        import pyarrow as pa
    return pa.concat_tables(
        [read_table(shard.files.columns, shard.entry.n).take(pa.array(rows)) for shard, rows in parts]
    )


def columns_at(shards: Sequence[Shard], found: Sequence[tuple[int, Array, Array]]) -> Any:
    """The columns of rows that `View.locate` found, in the order in which they were asked for."""
    table = columns_of([(shards[number], rows) for number, _, rows in found])
    if table is None:
        return None
    return table.take(np.argsort(np.concatenate([here for _, here, _ in found])))
