"""Fewer and fuller shards: bytes of rows are copied, never decoded, and rows keep their order and ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuzip.codecs.mixed import cat
from gpuzip.dataset.draft import Draft
from gpuzip.dataset.shards import Shard
from gpuzip.dataset.tables import columns_of

#: Most bytes of codes that are merged into one shard, which stand in memory meanwhile.
MERGED_BYTES = 256 << 20


def compact(draft: Draft, removed: float, small: int) -> None:
    """Rewrite shards with more than a share of removed rows, and merge runs of neighbours that are small."""
    runs = _runs(draft.view.shards, draft.view.codec.code_size, removed, small)
    draft.shards = [
        run[0].entry if len(run) == 1 and not _is_worn(run[0], removed) else _merged(draft, run)
        for run in runs
    ]


def _is_worn(shard: Shard, removed: float) -> bool:
    return shard.entry.removed > removed * shard.entry.n


def _runs(shards: Sequence[Shard], code_size: int, removed: float, small: int) -> list[list[Shard]]:
    """All shards in order; those that become one stand together."""
    runs: list[list[Shard]] = []
    room = -1  # bytes that the last run may still take; less than 0 where it takes none
    for shard in shards:
        size = len(shard) * code_size
        is_open = _is_worn(shard, removed) or len(shard) < small
        if is_open and room >= size:
            runs[-1].append(shard)
            room -= size
        else:
            runs.append([shard])
            room = MERGED_BYTES - size if is_open else -1
    return runs


def _merged(draft: Draft, run: Sequence[Shard]) -> Any:
    codes = cat([shard.live_codes() for shard in run])
    ids = np.concatenate([shard.live_ids() for shard in run])
    return draft.shard(codes, ids, columns_of([(shard, shard.live) for shard in run]))
