"""What compression did to the vectors, measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gpuzip.errors import FormatError


@dataclass(frozen=True)
class Quality:
    """Error of decoded rows against their source.

    cosine: of the two matrices flattened (as embzip reports it). row_cosine: mean over rows.
    mse: mean squared error of a value.
    """

    cosine: float
    row_cosine: float
    mse: float

    def to_json(self) -> dict[str, float]:
        return {name: float(f"{value:.6g}") for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: Any) -> Quality:
        try:
            return cls(*(float(fields[name]) for name in ("cosine", "row_cosine", "mse")))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"quality record is {fields!r}, cosine, row_cosine and mse are needed."
            ) from error


class QualityMeter:
    """Adds up blocks of (source, decoded) rows in float64."""

    def __init__(self) -> None:
        self._rows = self._values = 0
        self._dot = self._source = self._decoded = self._error = self._row_cosines = 0.0

    def add(self, source: Tensor, decoded: Tensor) -> None:
        dot, xx, yy = (
            (a * b).sum(1).double() for a, b in ((source, decoded), (source, source), (decoded, decoded))
        )
        self._rows += len(source)
        self._values += source.numel()
        self._dot += float(dot.sum())
        self._source += float(xx.sum())
        self._decoded += float(yy.sum())
        self._error += float((source - decoded).square().sum(dtype=torch.float64))
        norms = (xx * yy).sqrt()
        self._row_cosines += float(
            torch.where(norms > 0, dot / norms.clamp(min=1e-300), (xx == yy).double()).sum()
        )

    def result(self) -> Quality | None:
        """None when no row was added."""
        if self._rows == 0:
            return None
        norms = (self._source * self._decoded) ** 0.5
        cosine = self._dot / norms if norms > 0 else float(self._source == self._decoded)
        return Quality(cosine, self._row_cosines / self._rows, self._error / self._values)


def recall(ids: Tensor, truth: Tensor) -> float:
    """Share of the true neighbours found: mean over queries of |ids & truth| / |truth|; (Q, k) each."""
    found = (ids[:, :, None] == truth[:, None, :]).any(1)
    return float(found.double().mean())
