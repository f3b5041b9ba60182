"""What `compress_file` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from gpuzip._core.quality import HeldOut
from gpuzip._core.tables import html_table
from gpuzip.codecs.base import Codec


@dataclass(frozen=True)
class Compressed:
    """Hold the facts, sizes and times of a `compress_file`. print() shows them.

    Attributes
    ----------
    path : Path
        The file, or the folder of the dataset.
    n, d : int
        Rows and columns.
    dtype : torch.dtype
        Dtype of the source.
    codec : Codec
        The fitted codec.
    nbytes : int
        Bytes on disk.
    held_out : HeldOut or None
        Quality on rows of the sample that the codec was not fitted on.
    why : str or None
        Why this codec was chosen, if it was chosen for an outcome in this run.
    resumed : int
        Rows that an interrupted run had compressed before.
    seconds : dict of str to float
        Where the time went: "reading", "training", "encoding" and "writing".
    """

    path: Path
    n: int
    d: int
    dtype: torch.dtype
    codec: Codec
    nbytes: int
    held_out: HeldOut | None
    why: str | None
    resumed: int
    seconds: dict[str, float] = field(repr=False)

    @property
    def ratio(self) -> float:
        """Bytes of the source rows over `nbytes`."""
        return self.n * self.d * self.dtype.itemsize / self.nbytes

    @property
    def rows_per_second(self) -> float:
        """Rows of this run over all its time."""
        return (self.n - self.resumed) / max(1e-9, sum(self.seconds.values()))

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self._facts().items())

    def _repr_html_(self) -> str:
        return html_table((), self._facts().items())

    def _facts(self) -> dict[str, str]:
        took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        facts = {
            "path": self.path.name,
            "rows": f"{self.n:,} x {self.d} {str(self.dtype).removeprefix('torch.')}",
            "codec": repr(self.codec),
            "bytes": f"{self.nbytes:,}, {self.ratio:.2f}x smaller",
            "held out": "" if self.held_out is None else str(self.held_out),
            "resumed": f"after {self.resumed:,} rows" if self.resumed else "",
            "took": f"{took}: {self.rows_per_second:,.0f} rows/s",
            "why": self.why or "",
        }
        return {name: value for name, value in facts.items() if value}
