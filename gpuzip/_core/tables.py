"""Small tables as text and as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column to the left, others to the right, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_aligned(row, widths)) for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if i else cell.ljust(width)


def html_table(heads: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table with a line of heads, unless heads is empty. All text is escaped."""
    lines = [_line("th", heads)] if heads else []
    return "<table>\n" + "\n".join([*lines, *(_line("td", row) for row in rows)]) + "\n</table>"


def _line(tag: str, cells: Sequence[Any]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
