"""Progressive search: plane one of RaBitQ codes, then all bits of the candidates, beside a scan of all bits.

    python -m bench.recall.progressive

On the rows and queries of `bench.recall`. Bytes read are those of the planes that are scanned, and of all
planes of the candidates. Writes bench/results/recall_progressive.csv; the exit status is 1 when no search of
4 bits that reads at most a third of the bytes has within 0.01 of the full scan's recall@10.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import gpuzip
from bench.measure import timed
from bench.recall.rows import Data, K, Row
from bench.record import main
from gpuzip import RaBitQuantizer

#: Targets of 4-bit codes: share of the bytes that a full scan reads, and share of its recall@10.
SHARE, SLACK = 1 / 3, 0.01

_BITS = (2, 4, 8)
_MULTIPLIERS = (2, 4, 16)


def searches(planes: int) -> Iterator[tuple[str, int, int, dict[str, Any]]]:
    """Name, planes that are scanned, candidates whose planes are all read, settings; the full scan first."""
    yield "all bits", planes, 0, {}
    for multiplier in _MULTIPLIERS:
        about = {"rescore": True, "rescore_multiplier": multiplier}
        yield f"plane one, then {multiplier}k", 2, multiplier * K, about | {"candidates": "plane"}
        yield f"Hamming, then {multiplier}k", 1, multiplier * K, about | {"candidates": "hamming"}


def measured(bits: int, data: Data) -> Iterator[Row]:
    truth = (data.queries @ data.x.T).topk(K).indices
    codes = RaBitQuantizer(bits).fit(data.x[data.trained]).encode(data.x)
    sizes, N, Q = codes.codec.plane_sizes, len(codes), len(data.queries)
    for name, planes, candidates, settings in searches(len(sizes)):
        search = partial(codes.search, data.queries, K, "cosine", **settings)
        search()
        (_, ids), took = timed(search)
        read = N * sum(sizes[:planes]) + candidates * sum(sizes)
        row = {"bits": bits, "row_bytes": codes.codec.code_size, "rows": N, "queries": Q, "search": name}
        row |= {"share_read": read / (N * sum(sizes)), "recall": gpuzip.recall(ids, truth)}
        yield row | {"queries_per_second": Q / took}


def is_met(rows: list[Row]) -> bool:
    """Whether a search of 4 bits reads little and finds nearly what the full scan does."""
    full, *others = (row for row in rows if row["bits"] == 4)
    return any(row["share_read"] <= SHARE and row["recall"] >= full["recall"] - SLACK for row in others)


def measure(few: int | None) -> list[Row]:
    """`ok` of the full scan of 4 bits says whether the target is met."""
    data = Data.chosen()
    rows = [row for bits in _BITS for row in measured(bits, data)]
    first = next(row for row in rows if row["bits"] == 4)
    return [row | {"ok": is_met(rows) if row is first else None} for row in rows]


if __name__ == "__main__":
    sys.exit(main("recall_progressive", __doc__, measure, few=False))
