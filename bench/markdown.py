"""Results as Markdown: rows of a CSV file, tables, and numbers as text."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"

Row = dict[str, str]


def read(name: str) -> list[Row]:
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def verdict(ratio: float, peer: str) -> tuple[str, str]:
    """The peer's time over ours, as "1.4x", and which side is the faster one."""
    digits = 0 if ratio >= 9.95 else 1 if ratio >= 0.95 else 2
    who = "neither" if 0.95 <= ratio < 1.05 else "gpuzip" if ratio > 1 else peer.split(",")[0].split(" ")[0]
    return f"{ratio:.{digits}f}x", who


def table(heads: list[str], body: Iterable[list[str]]) -> list[str]:
    rules = [" --- ", *[" ---: "] * (len(heads) - 1)]
    return [_line(heads), "|" + "|".join(rules) + "|", *map(_line, body)]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def measured(row: Row) -> str:
    cpu = re.sub(r"\((R|TM)\)", "", row["cpu"])
    return (
        f"Measured {row['date']} on {cpu}, {row['threads']} threads, torch {row['torch']}, "
        f"faiss {row['faiss']}, Python {row['python']}, commit {row['commit']}."
    )


def number(text: str) -> str:
    return f"{float(text):,.3f}" if float(text) < 10 else f"{float(text):,.1f}"


def as_seconds(text: str) -> str:
    value = float(text)
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"


def as_bytes(text: str) -> str:
    if not text:
        return "-"
    value = float(text) / 1e6
    return f"{value:.1f} MB" if value < 9.95 else f"{value:,.0f} MB"
