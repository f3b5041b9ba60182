"""Rows of results: shown, kept as CSV files with what they were measured on, and judged."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import faiss
import torch

from bench import tables
from bench.checkout import commit, put, text
from bench.measure import is_quick
from bench.peers import same_threads


def main(
    kind: str, doc: str | None, measure: Callable[[int | None], Iterable[dict[str, Any]]], few: bool = True
) -> int:
    """What `python -m bench.KIND` runs. measure: rows of results. few: whether of fewer rows, too."""
    summary = (doc or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog=f"python -m bench.{kind}", description=summary)
    if few:
        parser.add_argument("--rows", type=int, help="measure on so many; writes nothing")
    rows = vars(parser.parse_args()).get("rows")
    same_threads()
    try:
        return finish(kind, list(measure(rows)), whole=rows is None)
    except FileNotFoundError as error:  # of the large set, with how to make it
        print(error)
        return 1


def finish(kind: str, rows: list[dict[str, Any]], *, whole: bool = True) -> int:
    """Show the rows and keep them; the exit status, 1 where one has missed its target.

    whole: False where they are of fewer rows than the results. Those are not kept, and no target fails.
    """
    print(tables.screen(kind, [stamped(row) for row in rows]))
    missed = [row for row in rows if row.get("ok") is False]
    for row in missed:
        print(
            "MISSED:", ", ".join(f"{name} {text(value)}" for name, value in row.items() if value is not None)
        )
    if not whole or is_quick():
        return 0
    write(kind, rows)
    return int(bool(missed))


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """Replace bench/results/<name>.csv, unless the run is a quick one; git keeps the older ones."""
    if not is_quick():
        put(name, [stamped(row) for row in rows])


def stamped(row: dict[str, Any]) -> dict[str, str]:
    """A row as text, with `stamp`."""
    return {column: text(value) for column, value in (row | stamp()).items()}


@cache
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
