"""Rows of results as CSV files, each row with what it was measured on."""

from __future__ import annotations

import csv
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import faiss
import torch
from rich.console import Console
from rich.table import Table

from bench.cells import fill
from bench.checkout import RESULTS, commit
from bench.measure import is_quick


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """Replace bench/results/<name>.csv, unless the run is a quick one; git keeps the older ones."""
    if not is_quick():
        put(name, [stamped(row) for row in rows])


def finish(
    name: str, rows: list[dict[str, Any]], heads: str, cells: str, *, title: str, whole: bool = True
) -> int:
    """Show the rows and keep them; the exit status, 1 where one has missed its target.

    whole: False where they are of fewer rows than the results. Those are not kept, and no target fails.
    """
    show(title, heads, cells, rows)
    if not whole or is_quick():
        return 0
    write(name, rows)
    return int(any(row.get("ok") is False for row in rows))


def stamped(row: dict[str, Any]) -> dict[str, str]:
    """A row as text, with `stamp`."""
    return {column: _text(value) for column, value in (row | stamp()).items()}


def put(name: str, rows: list[dict[str, str]]) -> None:
    """`write` of rows that are stamped."""
    with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def stamp() -> dict[str, Any]:
    """When, of which source, on which machine and with which libraries. Names no host and no path."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit(),
        "cpu": cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "faiss": faiss.__version__,
        "python": platform.python_version(),
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def show(title: str, heads: str, cells: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """A table on the screen. Heads and cells are forms as those of `bench.tables`."""
    table = Table(*heads.split(" | "), title=title, title_justify="left")
    for row in rows:
        table.add_row(*fill(cells, row).split(" | "))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _text(value: Any) -> str:
    """Six digits of a float, nothing for None."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
