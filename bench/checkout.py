"""The checkout: its results, and which source a number was measured with."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"

Row = dict[str, str]

# What a number depends on. Results and pages change while the benchmarks run.
_SOURCES = ["gpuzip", "kernels", "bench", "tools", "examples", ":!bench/results", ":!*.md"]


def read(name: str) -> list[Row]:
    """The rows of bench/results/<name>.csv."""
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def commit() -> str:
    """Short hash of the checkout, "+dirty" when the sources differ from it; "unknown" outside git."""
    try:
        head = _git("rev-parse", "--short", "HEAD")
        return head + ("+dirty" if _git("status", "--porcelain", "--", *_SOURCES) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return run.stdout.strip()
