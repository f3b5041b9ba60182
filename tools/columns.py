"""Text in columns."""

from __future__ import annotations

from collections.abc import Collection


def aligned(heads: list[str], lines: list[list[str]], left: Collection[str]) -> str:
    """Heads and lines in columns, those named in `left` to the left and the others to the right."""
    cells = [heads, *([cell or "-" for cell in line] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    form = "  ".join(
        f"{{:{'<' if head in left else '>'}{width}}}" for head, width in zip(heads, widths, strict=True)
    )
    return "\n".join(form.format(*line).rstrip() for line in cells)
