"""What compressing a model's embeddings did."""

from __future__ import annotations

import math
from dataclasses import dataclass

_TITLES = ("embedding", "shape", "bytes before", "bytes after", "smaller", "mse", "cosine")


@dataclass(frozen=True)
class ReportRow:
    """One table of a model.

    names: of all modules that read it, in the model. bytes: of codes, codebooks and kept rows against those
    of the weight; the same where it was left alone, and `reason` says why. mse and cosine: of decoded rows
    against the weight, flattened; NaN where it was left alone.
    """

    names: tuple[str, ...]
    shape: tuple[int, int]
    bytes_before: int
    bytes_after: int
    mse: float = math.nan
    cosine: float = math.nan
    reason: str | None = None


@dataclass(frozen=True)
class Report:
    """What `quantize_embeddings_` did to every table, in the model's order. str() is a table of it."""

    rows: tuple[ReportRow, ...]

    @property
    def bytes_before(self) -> int:
        return sum(row.bytes_before for row in self.rows)

    @property
    def bytes_after(self) -> int:
        return sum(row.bytes_after for row in self.rows)

    @property
    def ratio(self) -> float:
        """bytes_before over bytes_after; NaN where there is no table."""
        return self.bytes_before / self.bytes_after if self.bytes_after else math.nan

    def __str__(self) -> str:
        total = ("total", "", *_sizes(self.bytes_before, self.bytes_after), "", "")
        lines = [_TITLES, *(_cells(row) for row in self.rows), total]
        widths = [max(len(line[column]) for line in lines) for column in range(len(_TITLES))]
        reasons = ["", *(row.reason or "" for row in self.rows), ""]
        return "\n".join(_aligned(*pair, widths) for pair in zip(lines, reasons, strict=True))


def _cells(row: ReportRow) -> tuple[str, ...]:
    measured = ("", "") if row.reason else (f"{row.mse:.3g}", f"{row.cosine:.5f}")
    return (
        ", ".join(row.names),
        f"{row.shape[0]} x {row.shape[1]}",
        *_sizes(row.bytes_before, row.bytes_after),
        *measured,
    )


def _sizes(before: int, after: int) -> tuple[str, str, str]:
    return f"{before:,}", f"{after:,}", f"{before / after:.2f}x" if after else ""


def _aligned(cells: tuple[str, ...], reason: str, widths: list[int]) -> str:
    """The first cell to the left, all others to the right."""
    line = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
    return "  ".join([*line, f"left alone: {reason}" if reason else ""]).rstrip()
