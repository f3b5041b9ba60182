"""What a file says of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gpuzip.quality import Quality

_RULE = "=" * 100


@dataclass(frozen=True)
class FileInfo:
    """The header of a compressed file. Sizes are bytes on disk, header and codebooks included.

    quality is what was measured against the source when the file was written, or None.
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
        """Bytes of the rows before compression."""
        return self.n * self.d * self.dtype.itemsize

    @property
    def ratio(self) -> float:
        return self.source_nbytes / self.nbytes

    @property
    def cosine(self) -> float:
        """Cosine of source and decoded rows, flattened; NaN when it was not measured."""
        return math.nan if self.quality is None else self.quality.cosine

    def __str__(self) -> str:
        knobs = {name: value for name, value in self.config.items() if name in ("m", "nbits")}
        titles = [
            f"File: {self.path.name}",
            f"n: {self.n}",
            *(f"{name}: {value}" for name, value in knobs.items()),
        ]
        measured = "not measured" if self.quality is None else repr(self.quality.cosine)
        return "\n".join(
            [
                _RULE,
                " | ".join(titles),
                f"Original size: {self.source_nbytes} bytes",
                f"Compressed size: {self.nbytes} bytes",
                f"Compression ratio: {self.ratio:.2f}",
                f"Cosine similarity: {measured}",
                _RULE,
            ]
        )
