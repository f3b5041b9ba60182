"""The header of a file as an object, and its text form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpuzip._core.checks import printable
from gpuzip._core.quality import HeldOut, Quality
from gpuzip._core.tables import html_table
from gpuzip.errors import GpuzipError, QualityError

_RULE = "=" * 100
_POOR = 0.8  # mean cosine of rows, below which advice is given


@dataclass(frozen=True)
class FileInfo:
    """Hold the header of a compressed file.

    Attributes
    ----------
    path : Path or str
        The file: a str for a URL, without user, password and query.
    nbytes : int
        Bytes on disk, with header and codebooks.
    n, d : int
        Rows and columns of the source.
    dtype : torch.dtype
        Dtype of the source, in which rows are decoded.
    codec : str
        Id of the codec.
    config : dict
        Settings of the codec.
    quality : Quality or None
        Error against the source, measured when the file was written.
    library : str
        Version of gpuzip that wrote the file.
    format : int
        Version of the file format.
    """

    path: Path | Any  # Any stands for str: with both, each caller would have to tell them apart
    nbytes: int
    n: int
    d: int
    dtype: torch.dtype
    codec: str
    config: dict[str, Any]
    quality: Quality | None
    library: str
    format: int

    @property
    def source_nbytes(self) -> int:
        """Bytes of the source rows: n * d * bytes per value."""
        return self.n * self.d * self.dtype.itemsize

    @property
    def ratio(self) -> float:
        """Compression ratio: `source_nbytes` over `nbytes`."""
        return self.source_nbytes / self.nbytes

    @property
    def cosine(self) -> float:
        """Cosine of source and decoded rows, both flattened. NaN if it was not measured."""
        return math.nan if self.quality is None else self.quality.cosine

    @property
    def held_out(self) -> HeldOut | None:
        """Error and recall on rows that the codec was not fitted on, or None if not measured."""
        return HeldOut.of_json(self.config["held_out"]) if "held_out" in self.config else None

    @property
    def advice(self) -> str | None:
        """What would lose less, where the mean cosine of rows is below 0.8; else None."""
        return None if self.quality is None else advice_for(self.quality, self.d)

    def _repr_html_(self) -> str:
        _, titles, *lines, _ = str(self).split("\n")
        return html_table((), map(_facts, [*titles.split(" | "), *lines]))

    def __str__(self) -> str:
        knobs = {name: value for name, value in self.config.items() if name in ("m", "nbits")}
        titles = [
            f"File: {printable(Path(self.path).name)}",
            f"n: {self.n}",
            *([] if self.codec == "pq" else [f"codec: {printable(self.codec)}"]),
            *(f"{name}: {value!r}" for name, value in knobs.items()),
        ]
        held_out = [] if self.held_out is None else [f"Held out: {self.held_out}"]
        measured = "not measured" if self.quality is None else repr(self.quality.cosine)
        return "\n".join(
            [
                _RULE,
                " | ".join(titles),
                f"Original size: {self.source_nbytes} bytes",
                f"Compressed size: {self.nbytes} bytes",
                f"Compression ratio: {self.ratio:.2f}",
                f"Cosine similarity: {measured}",
                *([] if self.quality is None else [f"Mean cosine of rows: {self.quality.row_cosine!r}"]),
                *held_out,
                *([] if self.advice is None else [self.advice]),
                _RULE,
            ]
        )


def _facts(line: str) -> tuple[str, str]:
    name, _, value = line.partition(": ")
    return (name, value) if value else ("", name)


def advice_for(quality: Quality, d: int) -> str | None:
    """What would lose less, where the mean cosine of rows is below 0.8; else None."""
    if quality.row_cosine >= _POOR:
        return None
    return (
        f"Little is left of these rows: with m={max(1, d // 4)} (D // 4; the default is D // 16) or nbits=8 "
        "more is, and compress(x, min_cosine=0.9) finds the smallest codec that is good enough."
    )


def check_cosine(info: FileInfo, min_cosine: float) -> None:
    """Raise QualityError unless the stored mean cosine of rows is at least min_cosine."""
    if not isinstance(min_cosine, float | int) or isinstance(min_cosine, bool) or not -1 <= min_cosine <= 1:
        raise GpuzipError(f"open: min_cosine must be a number from -1 to 1; got {min_cosine!r}.")
    if info.quality is None:
        raise QualityError(
            f"{info.path}: has no stored quality to compare with min_cosine={min_cosine}. "
            "Save it with its source rows: codes.save(path, x)."
        )
    if info.quality.row_cosine < min_cosine:
        raise QualityError(
            f"{info.path}: the mean cosine of rows must be at least min_cosine={min_cosine}; it is "
            f"{info.quality.row_cosine}. Compress again with gpuzip.compress(x, min_cosine={min_cosine})."
        )
