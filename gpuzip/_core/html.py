"""Small HTML tables, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def html_table(heads: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A table with a line of heads, unless they are empty. All text is escaped."""
    lines = [_line("th", heads)] if heads else []
    return "<table>\n" + "\n".join([*lines, *(_line("td", row) for row in rows)]) + "\n</table>"


def _line(tag: str, cells: Sequence[Any]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"
