"""The table of codecs that were tried, as text or as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from gpuzip._core.extras import needs
from gpuzip._core.tables import html_table, text_table
from gpuzip.codecs import Codec


@dataclass(frozen=True)
class Tried:
    """A codec that was tried, with its size and its quality on held-out rows.

    Attributes
    ----------
    family, spec : str
        Family in the grid, and text for `gpuzip.from_spec`.
    code_size : int
        Bytes per row.
    nbytes : int
        Bytes of the codes of all rows and of the codec.
    ratio : float
        Bytes of the source rows over `nbytes`.
    row_cosine, mse, recall, rescored_recall : float
        As in HeldOut.
    sure_cosine, sure_recall : float
        Lower confidence bounds (95 %) of the cosine and of the recall that was asked for.
    seconds : float
        Time to fit, encode and measure.
    on_front : bool
        Whether no smaller codec of the table has as much quality.
    codec : Codec
        The fitted codec.
    """

    family: str
    spec: str
    code_size: int
    nbytes: int
    ratio: float
    row_cosine: float
    sure_cosine: float
    mse: float
    recall: float | None = None
    rescored_recall: float | None = None
    sure_recall: float | None = None
    seconds: float = 0.0
    on_front: bool = False
    codec: Codec | None = field(default=None, repr=False, compare=False)

    def numbers(self) -> dict[str, Any]:
        """All attributes but the codec, by name."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "codec"}


_HEADS = ["codec", "bytes per row", "bytes", "smaller", "cosine", "recall", "rescored", "seconds", "front"]


class Table(list[Tried]):
    """List of `Tried`, by rising bytes. print() shows a table."""

    def __str__(self) -> str:
        return "\n".join(line.rstrip() for line in text_table([_HEADS, *map(_cells, self)]))

    def _repr_html_(self) -> str:
        return html_table(_HEADS, map(_cells, self))

    def to_arrow(self) -> Any:
        """Return a pyarrow.Table with these columns. Raises MissingDependencyError without pyarrow."""
        with needs("pyarrow", "arrow"):
            import pyarrow
        return pyarrow.Table.from_pylist([row.numbers() for row in self])


def table_of(tried: Sequence[Tried]) -> Table:
    """Sort by bytes and mark the front, by the recall that was asked for, or else by cosine."""
    rows, best = [], float("-inf")
    for row in sorted(tried, key=lambda row: (row.nbytes, -_quality(row))):
        rows.append(replace(row, on_front=_quality(row) > best))
        best = max(best, _quality(row))
    return Table(rows)


def _quality(row: Tried) -> float:
    return row.row_cosine if row.sure_recall is None else row.sure_recall


def _cells(row: Tried) -> list[str]:
    shares = (row.row_cosine, row.recall, row.rescored_recall)
    quality = ["" if share is None else f"{share:.4f}" for share in shares]
    size = [str(row.code_size), f"{row.nbytes:,}", f"{row.ratio:.1f}x"]
    return [row.spec, *size, *quality, f"{row.seconds:.1f}", "*" * row.on_front]
