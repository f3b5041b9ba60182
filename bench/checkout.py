"""The checkout: its results as CSV files, and which source a number was measured with."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"

Row = dict[str, str]

# What a number depends on. Results and pages change while the benchmarks run.
_SOURCES = ["gpuzip", "kernels", "bench", "tools", "examples", ":!bench/results", ":!*.md"]


def read(name: str, folder: Path | None = None) -> list[Row]:
    """The rows of <name>.csv in a folder, by default bench/results; none where there is no file."""
    path = (folder or RESULTS) / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def put(name: str, rows: list[Row]) -> None:
    """Replace bench/results/<name>.csv."""
    (RESULTS / f"{name}.csv").unlink(missing_ok=True)
    append(RESULTS / f"{name}.csv", rows)


def append(path: Path, rows: list[dict[str, Any]] | list[Row]) -> None:
    """Add rows to a CSV file; a file of other columns is an error, and stays as it is."""
    heads, there = list(rows[0]), path.exists()
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
