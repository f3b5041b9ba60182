"""What was tried for an outcome: one row a codec, as text or an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from gpuzip.codecs import Codec
from gpuzip.errors import MissingDependencyError


@dataclass(frozen=True)
class Tried:
    """A codec that was fitted on some rows, and what it does to others.

    code_size: bytes per row. nbytes: of the codes of all rows, with what decodes them. ratio: of the source's
    bytes to that. row_cosine, mse, recall, rescored_recall: as in HeldOut. sure_cosine, sure_recall: the
    least that they are likely to be on further rows; of recall the one that was asked for. seconds: to fit,
    encode and measure. on_front: no codec of the table has as much quality in fewer bytes.
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
        """All but the codec."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "codec"}


class Table(list[Tried]):
    """Rows by their bytes. print() shows them; `to_arrow` gives a pyarrow.Table."""

    def __str__(self) -> str:
        heads = [
            "codec",
            "bytes per row",
            "bytes",
            "smaller",
            "cosine",
            "recall",
            "rescored",
            "seconds",
            "front",
        ]
        lines = [heads, *map(_cells, self)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
        return "\n".join(_line(line, widths) for line in lines)

    def to_arrow(self) -> Any:
        """A pyarrow.Table of the same columns. Raises MissingDependencyError without pyarrow."""
        try:
            import pyarrow
        except ModuleNotFoundError as error:
            raise MissingDependencyError("pyarrow is not installed: pip install 'gpuzip[words]'.") from error
        return pyarrow.Table.from_pylist([row.numbers() for row in self])


def table_of(tried: Sequence[Tried]) -> Table:
    """By bytes, with the front marked: by the recall that was asked for, or by cosine."""
    rows, best = [], float("-inf")
    for row in sorted(tried, key=lambda row: (row.nbytes, -_quality(row))):
        rows.append(replace(row, on_front=_quality(row) > best))
        best = max(best, _quality(row))
    return Table(rows)


def _quality(row: Tried) -> float:
    return row.row_cosine if row.sure_recall is None else row.sure_recall


def _line(cells: list[str], widths: list[int]) -> str:
    first, *others = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join([first.strip().ljust(widths[0]), *others]).rstrip()


def _cells(row: Tried) -> list[str]:
    shares = (row.row_cosine, row.recall, row.rescored_recall)
    quality = ["" if share is None else f"{share:.4f}" for share in shares]
    size = [str(row.code_size), f"{row.nbytes:,}", f"{row.ratio:.1f}x"]
    return [row.spec, *size, *quality, f"{row.seconds:.1f}", "*" * row.on_front]
