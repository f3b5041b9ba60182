"""Progressive search: plane one of RaBitQ codes, then all bits of the candidates, beside a scan of all bits.

    python -m bench.recall.progressive

On the rows and queries of `bench.recall`. Bytes read are those of the planes that are scanned, and of all
planes of the candidates. Writes bench/results/recall_progressive.csv; the exit status is 1 when no search of
4 bits that reads at most a third of the bytes has within 0.01 of the full scan's recall@10.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

import gpuzip
from bench.measure import is_quick
from bench.peers import same_threads
from bench.recall.rows import Data, K, Row
from bench.record import finish
from gpuzip import Codes, RaBitQuantizer

#: Of 4 bits: of the full scan's bytes, and of recall@10.
SHARE, SLACK = 1 / 3, 0.01

_BITS = (2, 4, 8)
_MULTIPLIERS = (2, 4, 16)


@dataclass(frozen=True)
class Search:
    """planes: how many are scanned first. candidates: rows per query whose every plane is read."""

    name: str
    planes: int
    candidates: int
    settings: dict[str, Any]

    def bytes_read(self, codes: Codes) -> int:
        """A query, of N rows."""
        sizes = codes.codec.plane_sizes
        return len(codes) * sum(sizes[: self.planes]) + self.candidates * sum(sizes)


def searches(planes: int) -> Iterator[Search]:
    """The full scan first."""
    yield Search("all bits", planes, 0, {})
    for multiplier in _MULTIPLIERS:
        about = {"rescore": True, "rescore_multiplier": multiplier}
        yield Search(f"plane one, then {multiplier}k", 2, multiplier * K, about | {"candidates": "plane"})
        yield Search(f"Hamming, then {multiplier}k", 1, multiplier * K, about | {"candidates": "hamming"})


def measured(bits: int, data: Data) -> Iterator[Row]:
    truth = (data.queries @ data.x.T).topk(K).indices
    codes = RaBitQuantizer(bits).fit(data.x[data.trained]).encode(data.x)
    whole = len(codes) * codes.codec.code_size
    for search in searches(len(codes.codec.plane_sizes)):
        ids, seconds = _timed(partial(codes.search, k=K, metric="cosine", **search.settings), data.queries)
        yield {
            "bits": bits,
            "row_bytes": codes.codec.code_size,
            "rows": len(codes),
            "queries": len(data.queries),
            "search": search.name,
            "share_read": search.bytes_read(codes) / whole,
            "recall": gpuzip.recall(ids, truth),
            "queries_per_second": len(data.queries) / seconds,
        }


def _timed(search: Any, queries: Tensor) -> tuple[Tensor, float]:
    search(queries)
    start = time.perf_counter()
    ids: Tensor = search(queries)[1]
    return ids, time.perf_counter() - start


def is_met(rows: list[Row]) -> bool:
    """Whether a search of 4 bits reads little and finds nearly what the full scan does."""
    full, *others = (row for row in rows if row["bits"] == 4)
    return any(row["share_read"] <= SHARE and row["recall"] >= full["recall"] - SLACK for row in others)


def main() -> int:
    same_threads()
    data = Data.chosen()
    if data is None:
        return 1
    rows = [row for bits in _BITS for row in measured(bits, data)]
    heads = "bits | search | bytes read | recall@10 | queries/s"
    cells = "{bits} | {search} | {share_read:%} | {recall:.4f} | {queries_per_second:,.0f}"
    finish("recall_progressive", rows, heads, cells, title="Progressive search")
    if is_met(rows) or is_quick():
        return 0
    print(f"MISSED: none of 4 bits within {SLACK} of the full scan reads {SHARE:.2f} of its bytes or less")
    return 1


if __name__ == "__main__":
    sys.exit(main())
