"""A test whether rows are still like those that a codec was fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gpuzip._core.quality import HeldOut, Quality, of_rows
from gpuzip._core.rows import Matrix, Rows
from gpuzip.errors import GpuzipError

_FEWEST = 10
_SOME, _MUCH = 1.1, 1.25  # ratios of losses; rows of unit length that differ may lose no more than that
_DOUBT = 2.0  # standard errors attributed to chance
_LEAST = 1e-6  # smallest loss by cosine, as stored cosines have six digits


class Measured(Protocol):
    """The part of `codecs.base.Codec` that is needed here."""

    @property
    def d(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def held_out(self) -> HeldOut | None: ...
    @property
    def file_quality(self) -> Quality | None: ...

    def check_fitted(self, who: str) -> None: ...
    def encode_block(self, x: Tensor) -> Tensor: ...
    def decode_block(self, data: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Drift:
    """Compare the loss on new rows with the loss at fit time.

    Attributes
    ----------
    then_mse, now_mse : float
        Mean squared error per value at fit time and now.
    then_cosine, now_cosine : float
        Mean cosine between rows and their decoded forms. The loss by cosine is 1 minus this.
    ratio : float
        Loss now over loss at fit time, by mse or by cosine, whichever is larger; inf if the loss at fit time
        was 0.
    sure_ratio : float
        Lower confidence bound of the ratio: two standard errors less.
    rows : int
        Number of new rows.
    """

    then_mse: float
    now_mse: float
    then_cosine: float
    now_cosine: float
    ratio: float
    sure_ratio: float
    rows: int

    @property
    def verdict(self) -> str:
        """One of "stable", "drifting" (`sure_ratio` is above 1.1) and "drifted" (above 1.25)."""
        if self.sure_ratio <= _SOME:
            return "stable"
        return "drifting" if self.sure_ratio <= _MUCH else "drifted"

    def __str__(self) -> str:
        return (
            f"{self.verdict}: {self.ratio:.3g} times the loss at fit time, on {self.rows} new rows (mse "
            f"{self.then_mse:.4g} then, {self.now_mse:.4g} now; cosine {self.then_cosine:.4f} then, "
            f"{self.now_cosine:.4f} now). {_ADVICE[self.verdict]}"
        )


_ADVICE = {
    "stable": "The codec suits these rows as well as before.",
    "drifting": "Measure again with more rows, and plan to fit a new codec on rows like these.",
    "drifted": "Fit a new codec on rows like these, and encode with it.",
}


def drift_of(codec: Measured, new_x: Matrix, x: Matrix | None) -> Drift:
    """Implements `Codec.drift`."""
    who = f"{type(codec).__name__}.drift"
    codec.check_fitted(who)
    then_mse, then_cosine = _then(who, codec, x)
    errors, losses = _losses(who, codec, new_x, "new_x")
    of_errors = _ratios(errors, then_mse)
    of_cosines = _ratios(losses.clamp(min=_LEAST), max(_LEAST, 1 - then_cosine))
    ratio, sure = (max(pair) for pair in zip(of_errors, of_cosines, strict=True))
    now = float(errors.mean()), 1 - float(losses.mean())
    return Drift(then_mse, now[0], then_cosine, now[1], ratio, sure, len(errors))


def _then(who: str, codec: Measured, x: Matrix | None) -> tuple[float, float]:
    """Mean squared error and mean cosine at fit time: of x if given, else as measured then."""
    if x is not None:
        errors, losses = _losses(who, codec, x, "x")
        return float(errors.mean()), 1 - float(losses.mean())
    known = codec.held_out or codec.file_quality
    if known is None:
        raise GpuzipError(
            f"{who}: x must be given, as the earlier loss of this codec was not measured. Pass rows to "
            "compare with, or use the codec of a file that was saved with its rows."
        )
    return known.mse, known.row_cosine


def _losses(who: str, codec: Measured, x: Matrix, name: str) -> tuple[Tensor, Tensor]:
    """Mean squared error per row (n,), and 1 - cosine per row that is not zero (m,); float64."""
    rows = Rows(who, x, codec.d, codec.device, name)
    if rows.n < _FEWEST:
        raise GpuzipError(
            f"{who}: {name} must have at least {_FEWEST} rows, to tell drift from chance; got {rows.n}. "
            "Pass more."
        )
    errors, losses = [], []
    for _, block in rows.blocks():
        block = block.to(codec.device)
        error, cosine = of_rows(block, codec.decode_block(codec.encode_block(block)))
        errors.append(error)
        losses.append(1 - cosine)
    of_rows_with_direction = torch.cat(losses)
    if len(of_rows_with_direction) < 2:  # no mean, no confidence bound
        return torch.cat(errors), torch.zeros_like(torch.cat(errors))
    return torch.cat(errors), of_rows_with_direction


def _ratios(now: Tensor, then: float) -> tuple[float, float]:
    """Ratio of the mean to the loss then, and a lower confidence bound of it."""
    mean = float(now.mean())
    sure = max(0.0, mean - _DOUBT * float(now.std()) / len(now) ** 0.5)
    if then == 0:
        return tuple(float("inf") if value > 0 else 1.0 for value in (mean, sure))  # type: ignore[return-value]
    return mean / then, sure / then
