"""Rows of measurements on a GPU: appended to a CSV file, and judged against their targets."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton

from bench.checkout import RESULTS, commit, text
from tools.roof.cases import Case, Task
from tools.roof.floors import Roofs
from tools.roof.timing import Time, query_gpu

Row = dict[str, Any]


def folder() -> Path:
    """Where rows go: the folder that the environment's OUT names, else bench/results."""
    return Path(os.environ["OUT"]) if os.environ.get("OUT") else RESULTS


def row_of(
    kernel: str,
    case: Case | Task,
    time: Time,
    roofs: Roofs,
    moved: int | None = None,
    queries: int | None = None,
) -> Row:
    """A row of the file, but for its stamp. moved: bytes in and out."""
    roofs = replace(roofs, clock=time.clock)
    floor, rate = case.floor(roofs), None if moved is None else moved / time.median
    return (
        {"kernel": kernel, "case": case.name, "tile": "", "seconds": time.median, "least_seconds": time.least}
        | {"floor_seconds": floor, "share": floor / time.median}
        | {"gb_per_second": rate and rate / 1e9, "copy_share": rate and rate / roofs.copy}
        | {"vectors_per_second": case.vectors / time.median}
        | {"queries_per_second": queries and queries / time.median}
        | {"peak_bytes": time.peak_bytes, "how": time.how, "roof_copy": roofs.copy}
        | {"roof_half": roofs.half, "roof_int8": roofs.int8, "clock": roofs.clock, "answer": ""}
    )


def stamp(device: str = "cuda") -> Row:
    """On what GPU, with which versions, of which source, when."""
    gpu = device == "cuda"
    return {
        "gpu": torch.cuda.get_device_name() if gpu else "no GPU",
        "driver": _driver() if gpu else "none",
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": commit(),
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _driver() -> str:
    """Nothing where nvidia-smi does not answer: a row is worth more than its driver's name."""
    try:
        return query_gpu("driver_version")
    except (OSError, subprocess.SubprocessError, AttributeError):
        return ""


#: GPUs that the targets in seconds and per second are for; a share of a roof is for every GPU.
KNOWN = ("H100", "H200")


class Target(NamedTuple):
    """What a row has to reach. column: of the row. least or most: one of the two is given."""

    kernel: str
    case: str
    column: str
    least: float = 0.0
    most: float = float("inf")

    def __str__(self) -> str:
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


def verdicts(rows: Iterable[Row], gpu: str) -> list[str]:
    """A line for each target: PASS or FAIL with what was measured, or why there is no verdict."""
    found = {(row["kernel"], row["case"]): row for row in rows}
    lines = []
    for target in TARGETS:
        row = found.get((target.kernel, target.case))
        measured = float("nan") if row is None else float(row[target.column])
        met = "PASS" if target.least <= measured <= target.most else "FAIL"
        if math.isnan(measured):
            lines.append(f"----  {target}: not measured")
        elif not target.column.endswith("share") and not any(name in gpu for name in KNOWN):
            lines.append(f"----  {target}: {text(measured)}; the target is for {' and '.join(KNOWN)}")
        else:
            lines.append(f"{met}  {target}: {text(measured)}")
    return lines
