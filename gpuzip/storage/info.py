"""The header of a file as an object, and its text form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpuzip._core.quality import HeldOut, Quality
from gpuzip.errors import GpuzipError, QualityError

_RULE = "=" * 100


@dataclass(frozen=True)
class FileInfo:
    """Hold the header of a compressed file. print() shows sizes and quality.

    Parameters
    ----------
    path : Path
        The file.
    nbytes : int
        Bytes of the file, with header and codec.
    n, d : int
        Number of rows and columns.
    dtype : torch.dtype
        Dtype of the source rows, which decoding returns.
    codec : str
        `id` of the codec.
    config : dict
        Settings of the codec, as JSON.
    quality : Quality or None
        Error against the source rows, if the file was saved with them.
    library : str
        Version of gpuzip that wrote the file.
    format : int
        Version of the file format.
    """

    path: Path
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
        """Bytes of the source rows."""
        return self.n * self.d * self.dtype.itemsize

    @property
    def ratio(self) -> float:
        """Bytes of the source rows over bytes of the file."""
        return self.source_nbytes / self.nbytes

    @property
    def cosine(self) -> float:
        """Cosine between source and decoded rows, flattened; NaN if it was not measured."""
        return math.nan if self.quality is None else self.quality.cosine

    @property
    def held_out(self) -> HeldOut | None:
        """Quality on rows that the codec was not fitted on, or None."""
        return HeldOut.of_json(self.config["held_out"]) if "held_out" in self.config else None

    def __str__(self) -> str:
        knobs = {name: value for name, value in self.config.items() if name in ("m", "nbits")}
        titles = [
            f"File: {self.path.name}",
            f"n: {self.n}",
            *(f"{name}: {value}" for name, value in knobs.items()),
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
                *held_out,
                _RULE,
            ]
        )


def check_cosine(info: FileInfo, min_cosine: float) -> None:
    """Raises QualityError unless the rows of a file are known to have this mean cosine with their source."""
    if not isinstance(min_cosine, float | int) or isinstance(min_cosine, bool) or not -1 <= min_cosine <= 1:
        raise GpuzipError(f"open: min_cosine must be a number from -1 to 1; got {min_cosine!r}.")
    if info.quality is None:
        raise QualityError(
            f"{info.path}: was not measured, min_cosine={min_cosine} is asked for. "
            "Save it with its source rows: codes.save(path, x)."
        )
    if info.quality.row_cosine < min_cosine:
        raise QualityError(
            f"{info.path}: the mean cosine of its rows is {info.quality.row_cosine}, below "
            f"min_cosine={min_cosine}. Make it anew from gpuzip.compress(x, min_cosine={min_cosine})."
        )
