"""The gate's findings as a table: the worst of each kernel, tile and target, as text and as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

import triton

from bench.columns import aligned
from bench.gate.rows import TARGETS, Row

_COUNTS = ["tensor", "wgmma", "popc", "lds", "sts", "sts8", "async", "ldg128", "stg128"]
_SIZES = ["registers", "stack", "shared", "instructions"]
HEADS = ["kernel", "tile", "target", "variants", *_SIZES, *_COUNTS, "status"]


def worst(rows: Iterable[Row]) -> list[list[str]]:
    """A line for each kernel, tile and target: the most of each column over the variants of arguments."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.kernel, row.tile, list(TARGETS).index(row.target)), []).append(row)
    return [_line(groups[key]) for key in sorted(groups)]


def _line(rows: list[Row]) -> list[str]:
    sizes = [_most(getattr(row, name) for row in rows) for name in _SIZES]
    counts = [_most(row.counts.get(name) for row in rows) for name in _COUNTS]
    status = max((row.status for row in rows), key=lambda status: (status != "ok", status))
    first = rows[0]
    return [first.kernel, first.tile, first.target, str(len(rows)), *sizes, *counts, status]


def _most(values: Iterable[int | None]) -> str:
    known = [value for value in values if value is not None]
    return str(max(known)) if known else ""


def text(lines: list[list[str]]) -> str:
    return aligned(HEADS, lines, left={"kernel", "tile", "target", "status"})


def written(lines: list[list[str]]) -> str:
    """The file: which triton it is of, then the lines as CSV."""
    file = io.StringIO()
    file.write(f"# triton {triton.__version__}\n")
    csv.writer(file, lineterminator="\n").writerows([HEADS, *lines])
    return file.getvalue()


def version_of(path: Path) -> str:
    """The triton that a file is of."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("# triton ").strip()
