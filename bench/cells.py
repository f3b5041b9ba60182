"""Text with values of results in it, and lines of such text as tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

Lines = list[str]


class Cell(str):
    """A value of a CSV file that formats as the number it is, `-` where there is none.

    Besides Python's formats: `n`, three decimals below 10 and one above; `%`, `s` and `MB` of a share, of
    seconds and of bytes; `x`, a ratio.
    """

    def __format__(self, form: str) -> str:
        if not form:
            return str(self)
        if not self:
            return "-"
        value = float(self)
        unit = form.lstrip("+")
        if unit == "n":
            return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"
        if unit == "x":
            return f"{value:.{0 if value >= 9.95 else 1 if value >= 0.95 else 2}f}x"
        if unit == "%":
            return f"{100 * value:{form[:-1]}.1f} %"
        if unit == "s":
            return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.{1 if value >= 10 else 2}f} s"
        if unit == "MB":
            return f"{value / 1e6:.1f} MB" if value < 9.95e6 else f"{value / 1e6:,.0f} MB"
        return format(int(value) if form == "," else value, form)


def fill(form: str, row: Mapping[str, Any]) -> str:
    """The form with the row's values in its braces."""
    return form.format_map({name: Cell("" if value is None else value) for name, value in row.items()})


def lines(heads: str, body: Iterable[str]) -> Lines:
    """A Markdown table: the first column to the left, the others to the right. Cells are apart by " | "."""
    rule = " | ".join(["---", *["---:"] * heads.count(" | ")])
    return [f"| {line} |" for line in (heads, rule, *body)]


def aligned(heads: list[str], body: list[list[str]], left: Collection[str]) -> str:
    """Heads and lines in columns, those named in `left` to the left and the others to the right."""
    cells = [heads, *([cell or "-" for cell in line] for line in body)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    form = "  ".join(
        f"{{:{'<' if head in left else '>'}{width}}}" for head, width in zip(heads, widths, strict=True)
    )
    return "\n".join(form.format(*line).rstrip() for line in cells)
