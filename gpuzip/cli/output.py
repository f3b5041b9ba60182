"""What a command prints: facts and tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import Any, TextIO

from gpuzip._core.bars import Bar
from gpuzip.cli.memory import PeakMemory

_AFTER = 2.0  # seconds before progress is shown
_WIDTH = 100
_INDENT = 12

Facts = Mapping[str, str | None]


class Output:
    """Print results to standard output, or to standard error where that holds the data (`-`).

    Parameters
    ----------
    as_json : bool
        Print one JSON object in place of text.
    data_on_stdout : bool, default False
        Whether standard output is taken by the data.
    """

    def __init__(self, as_json: bool, data_on_stdout: bool = False) -> None:
        self._as_json = as_json
        self._out: TextIO = sys.stderr if data_on_stdout else sys.stdout

    @property
    def progress(self) -> Bar | None:
        """A bar for what takes long, where a person looks at a terminal."""
        return Bar(_AFTER) if sys.stderr.isatty() and not self._as_json else None

    def show(self, result: Mapping[str, Any], text: str) -> None:
        """Print the result: as JSON if that was asked for, else the text."""
        shown = json.dumps(_plain(result), allow_nan=False) if self._as_json else text
        self._out.write(f"{shown}\n")


def facts(title: str, some: Facts) -> str:
    """A title and a line per fact; those that are None are left out, long ones wrapped."""
    lines, indent = [title], max([_INDENT, *(len(name) + 2 for name in some)])
    for name, value in some.items():
        if value is not None:
            parts = wrap(value, _WIDTH - indent - 2) or [""]
            lines.append(f"  {name:<{indent}}{parts[0]}")
            lines += [f"  {'':<{indent}}{part}" for part in parts[1:]]
    return "\n".join(lines)


def size(nbytes: float) -> str:
    """Bytes as people write them: "48.0 MB"."""
    if nbytes < 1000:
        return f"{nbytes:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        nbytes /= 1000
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}" if nbytes < 999.5 else f"{nbytes:.0f} {unit}"
    return f"{nbytes / 1000:,.3g} TB"


def rows_of(shape: Sequence[int], dtype: Any = None) -> str:
    """A shape as text: "1,000,000 x 384 float32"."""
    text = " x ".join(f"{side:,}" for side in shape)
    return text if dtype is None else f"{text} {str(dtype).removeprefix('torch.')}"


class Cost:
    """Time and memory that a command took; `rows` is set by the command."""

    rows = 0

    def __init__(self, memory: PeakMemory) -> None:
        self._began, self._memory = time.perf_counter(), memory

    def stop(self) -> dict[str, Any]:
        """The numbers: seconds, rows per second, peak memory in bytes."""
        seconds = time.perf_counter() - self._began
        return {
            "seconds": round(seconds, 3),
            "rows_per_second": round(self.rows / max(seconds, 1e-9)),
            "peak_memory": self._memory.peak(),
        }


@contextmanager
def measured() -> Iterator[Cost]:
    """Yield the cost of the block."""
    with PeakMemory() as memory:
        yield Cost(memory)


def cost_line(cost: Mapping[str, Any]) -> str:
    """The numbers of `Cost.stop` as text."""
    memory = cost["peak_memory"]
    peak = "" if memory is None else f", peak memory {size(memory)}"
    return f"{cost['seconds']:.1f} s, {cost['rows_per_second']:,} rows/s{peak}"


def _plain(value: Any) -> Any:
    """JSON's types; NaN and infinities, which JSON lacks, become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(some) for name, some in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(some) for some in value]
    return value if isinstance(value, str | int | bool | None) else str(value)
