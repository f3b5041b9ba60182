"""The report of compressing a model's embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpuzip._core.tables import html_table, text_table

_TITLES = ("embedding", "shape", "bytes before", "bytes after", "smaller", "mse", "cosine")


@dataclass(frozen=True)
class ReportRow:
    """Hold the result for one table of a model.

    Attributes
    ----------
    names : tuple of str
        Names of all modules that read the table.
    shape : (int, int)
        N rows and D values per row.
    bytes_before, bytes_after : int
        Bytes of the weight, and of codes, codebook and padding rows. Equal if the table was left alone.
    mse, cosine : float
        Mean squared error and flattened cosine of decoded rows against the weight. NaN if left alone.
    reason : str or None
        Why the table was left alone.
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
    """Hold what `quantize_embeddings_` did to every table. `str(report)` prints it as a table.

    Attributes
    ----------
    rows : tuple of ReportRow
        One row per table, in the model's order.
    """

    rows: tuple[ReportRow, ...]

    @property
    def bytes_before(self) -> int:
        """Bytes of all weights before compression."""
        return sum(row.bytes_before for row in self.rows)

    @property
    def bytes_after(self) -> int:
        """Bytes of all tables after compression, those left alone included."""
        return sum(row.bytes_after for row in self.rows)

    @property
    def ratio(self) -> float:
        """Compression ratio: bytes_before over bytes_after. NaN without tables."""
        return self.bytes_before / self.bytes_after if self.bytes_after else math.nan

    def _repr_html_(self) -> str:
        rows = [(*_cells(row), row.reason or "") for row in self.rows]
        return html_table((*_TITLES, ""), [*rows, (*self._total(), "")])

    def _total(self) -> tuple[str, ...]:
        return ("total", "", *_sizes(self.bytes_before, self.bytes_after), "", "")

    def __str__(self) -> str:
        lines = [_TITLES, *(_cells(row) for row in self.rows), self._total()]
        reasons = ["", *(f"  left alone: {row.reason}" * bool(row.reason) for row in self.rows), ""]
        pairs = zip(text_table(lines), reasons, strict=True)
        return "\n".join(f"{line}{reason}".rstrip() for line, reason in pairs)


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
