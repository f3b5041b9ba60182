"""Rows of measurements on a GPU: appended to a CSV file, and judged against their targets."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import triton

from bench.checkout import commit
from bench.roof.timing import query_gpu

Row = dict[str, Any]


def stamp() -> Row:
    """On what GPU, with which versions, of which source, when."""
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": query_gpu("driver_version"),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def append(path: Path, rows: list[Row]) -> None:
    """Add rows to a CSV file; a file of other columns is an error, and stays as it is."""
    heads = list(rows[0])
    there = path.exists()
    if there:
        with path.open(newline="", encoding="utf-8") as file:
            known = next(csv.reader(file), [])
        if known != heads:
            raise ValueError(f"{path.name} has the columns {known}, these rows have {heads}")
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, heads, lineterminator="\n")
        if not there:
            writer.writeheader()
        writer.writerows({name: text(value) for name, value in row.items()} for row in rows)


def text(value: Any) -> str:
    """Six digits of a float, nothing for None."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Target:
    """What a row has to reach on an H200. column: of the row. least or most: one of the two is given."""

    kernel: str
    case: str
    column: str
    least: float = 0.0
    most: float = float("inf")

    def met(self, row: Row) -> bool:
        return self.least <= float(row[self.column]) <= self.most

    def words(self) -> str:
        bound = f"at least {self.least:g}" if self.least else f"at most {self.most:g}"
        return f"{self.kernel} {self.case}: {self.column} {bound}"


TARGETS = [
    Target("encode", "N=1e+06 M=48 K=256 float32", "vectors_per_second", least=2e8),
    Target("encode", "N=1e+06 M=96 K=16 float32", "copy_share", least=0.6),
    Target("k-means", "N=65536 M=48 K=256 25 iterations", "seconds", most=0.015),
    Target("adc_scan", "N=1e+08 Q=1 M=48 K=256", "share", least=0.5),
    Target("PQ search", "N=1e+08 Q=1024 M=48 K=256 k=100", "queries_per_second", least=5000),
    Target("hamming_scan", "N=1e+08 Q=1 384 bit", "share", least=0.5),
    Target("hamming_scan", "N=1e+08 Q=1024 384 bit", "share", least=0.5),
    Target("decode", "N=1e+06 M=48 K=256 float32", "copy_share", least=0.7),
]


def verdicts(rows: Iterable[Row]) -> list[str]:
    """A line for each target: PASS or FAIL with what was measured, or that nothing was."""
    found = {(row["kernel"], row["case"]): row for row in rows}
    lines = []
    for target in TARGETS:
        row = found.get((target.kernel, target.case))
        if row is None:
            lines.append(f"----  {target.words()}: not measured")
            continue
        measured = text(row[target.column])
        lines.append(f"{'PASS' if target.met(row) else 'FAIL'}  {target.words()}: {measured}")
    return lines
