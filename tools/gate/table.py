"""The gate's findings as a table: the worst of each kernel, tile and target, as text and as a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import triton

from tools.gate.model import Time
from tools.gate.rows import TARGETS, Row

NEWEST = "3.9"

_COUNTS = ["tensor", "wgmma", "popc", "lds", "sts", "sts8", "async", "ldg128", "stg128"]
_SIZES = ["registers", "stack", "shared", "instructions"]
HEADS = ["kernel", "tile", "target", "variants", *_SIZES, *_COUNTS, "blocks", "loop", "status"]


def worst(rows: Iterable[Row]) -> list[list[str]]:
    """A line for each kernel, tile and target: the worst of each column over the variants of arguments."""
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.kernel, row.tile, list(TARGETS).index(row.target)), []).append(row)
    return [_line(groups[key]) for key in sorted(groups)]


def _line(rows: list[Row]) -> list[str]:
    sizes = [_worst(max, (getattr(row, name) for row in rows)) for name in _SIZES]
    counts = [_worst(max, (row.counts.get(name) for row in rows)) for name in _COUNTS]
    status = max((row.status for row in rows), key=lambda status: (status != "ok", status))
    loop = max((row.loop for row in rows), key=lambda loop: float(loop.partition(" ")[2] or 0))
    first, blocks = rows[0], _worst(min, (row.blocks for row in rows))
    return [first.kernel, first.tile, first.target, str(len(rows)), *sizes, *counts, blocks, loop, status]


def _worst(pick: Callable[[list[int]], int], values: Iterable[int | None]) -> str:
    known = [value for value in values if value is not None]
    return str(pick(known)) if known else ""


TIMES = ["operator", "case", "launches", "kernel", "tile", "blocks", "pipe", "modelled", "expected"]
TIMES += ["floor", "floor_pipe", "ratio", "status"]
#: Columns of text, in either table.
LEFT = {"kernel", "tile", "target", "loop", "status", "operator", "case", "pipe", "floor_pipe"}


def of_times(times: Iterable[Time]) -> list[list[str]]:
    """A line for each case, all of it modelled."""
    return [
        [t.op, t.case, str(t.launches), t.row.kernel, t.row.tile, str(t.kernel.blocks), t.kernel.pipe]
        + [_seconds(t.seconds), _seconds(t.expected), _seconds(t.floor), getattr(t.floor, "pipe", "")]
        + [f"{t.ratio:.2f}" if t.seconds else "", t.status]
        for t in times
    ]


def _seconds(value: float) -> str:
    """In microseconds below a thousandth; nothing of what is not known."""
    return "" if not value else f"{value * 1e6:.3g} us" if value < 1e-3 else f"{value * 1e3:.3g} ms"


def file_of(name: str, folder: Path) -> Path:
    """`name.csv` of the newest triton in use, `name_3.6.csv` of another."""
    version = ".".join(triton.__version__.split(".")[:2])
    return folder / (f"{name}.csv" if version == NEWEST else f"{name}_{version}.csv")


def written(lines: list[list[str]], heads: list[str] = HEADS) -> str:
    """The file: which triton it is of, then the lines as CSV."""
    file = io.StringIO()
    file.write(f"# triton {triton.__version__}\n")
    csv.writer(file, lineterminator="\n").writerows([heads, *lines])
    return file.getvalue()


def version_of(path: Path) -> str:
    """The triton that a file is of."""
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("# triton ").strip()
