"""Compression options that all constructors of WordVectors share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch

from gpuzip._core.checks import whole
from gpuzip._core.rows import Matrix
from gpuzip.api import compress
from gpuzip.choose.by_bytes import Importance, fit_alike
from gpuzip.codecs import Codec, LloydMaxQuantizer
from gpuzip.codecs.codes import Codes
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import GpuzipError

WordImportance = Mapping[str, float] | Importance


class Options(TypedDict, total=False):
    """Keyword arguments of `Recipe`."""

    bits: int
    codec: Codec | None
    max_bytes: int | str | None
    bits_per_dim: float | None
    importance: WordImportance | None
    max_bits: int
    dtype: torch.dtype
    seed: int


class Budget(TypedDict):
    """Size arguments of `gpuzip.compress`, of which one is not None."""

    max_bytes: int | str | None
    bits_per_dim: float | None


@dataclass(frozen=True)
class Recipe:
    """Checked compression options; the Notes of `WordVectors` describe each."""

    bits: int = 1
    codec: Codec | None = None
    max_bytes: int | str | None = None
    bits_per_dim: float | None = None
    importance: WordImportance | None = None
    max_bits: int = 8
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def __post_init__(self) -> None:
        names = ("max_bytes", "bits_per_dim", "importance")
        given = [name for name in names if getattr(self, name) is not None]
        object.__setattr__(self, "max_bits", whole("words", "max_bits", self.max_bits, 1, 8))
        if self.codec is not None and given:
            raise GpuzipError(
                f"WordVectors: codec must not be given with {', '.join(given)}, which choose a codec. "
                "Pass one of them."
            )
        if not (isinstance(self.dtype, torch.dtype) and self.dtype.is_floating_point):
            raise GpuzipError(f"WordVectors: dtype must be a torch float dtype; got {self.dtype!r}.")

    def compress(self, rows: Matrix, words: Sequence[str]) -> tuple[Codes | MixedCodes, torch.Tensor | None]:
        """Compress (N, D) rows. Also return the source row of each code, or None if the order is kept."""
        if self.max_bytes is None and self.bits_per_dim is None and self.importance is None:
            codec = LloydMaxQuantizer(min(self.bits, self.max_bits)) if self.codec is None else self.codec
            return self._coded(codec, rows), None
        if self.importance is None and self.max_bits == 8:
            return self._typed(
                fit_alike("compress", rows, self.max_bytes, self.bits_per_dim, self.seed)
            ), None
        ones = np.ones(len(words)) if self.importance is None else self.importance
        return self._by_importance(rows, importances(ones, words))

    def _by_importance(self, rows: Matrix, importance: torch.Tensor) -> tuple[MixedCodes, torch.Tensor]:
        found = compress(
            rows, seed=self.seed, importance=importance, max_bits=self.max_bits, **self._budget()
        )
        assert found.group is not None
        parts = [self._typed(part) for part in found.parts]  # bits descend
        return MixedCodes(parts), found.group.argsort(stable=True)

    def _budget(self) -> Budget:
        if self.max_bytes is not None:
            return {"max_bytes": self.max_bytes, "bits_per_dim": self.bits_per_dim}
        bits = self.bits if self.bits_per_dim is None else self.bits_per_dim
        return {"max_bytes": None, "bits_per_dim": min(bits, self.max_bits)}

    def _coded(self, codec: Codec, rows: Matrix) -> Codes:
        fitted = codec if codec.is_fitted else codec.fit(rows, seed=self.seed)
        return self._typed(fitted.encode(rows))

    def _typed(self, codes: Codes) -> Codes:
        return Codes(codes.codec, codes.data, self.dtype)


def importances(importance: WordImportance, words: Sequence[str]) -> torch.Tensor:
    """Return the importance of each word, (N,) float64. Raises GpuzipError unless all are finite and >= 0."""
    if isinstance(importance, Mapping):
        if not importance:
            raise GpuzipError("WordVectors: importance must hold at least one number; got an empty dict.")
        least = min(importance.values())
        importance = [importance.get(word, least) for word in words]
    try:
        values = torch.as_tensor(np.asarray(importance, np.float64), device="cpu")
    except (TypeError, ValueError) as error:
        raise GpuzipError(f"WordVectors: importance must be numbers: {error}.") from error
    if values.shape != (len(words),):
        raise GpuzipError(
            f"WordVectors: importance must have shape ({len(words)},); got {tuple(values.shape)}."
        )
    wrong = (~(values.isfinite() & (values >= 0))).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise GpuzipError(
            f"WordVectors: the importance of {words[row]!r} must be finite and at least 0; got "
            f"{float(values[row])}."
        )
    return values
