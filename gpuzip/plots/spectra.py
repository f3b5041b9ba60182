"""The variance of rows by principal direction, and the bits that each dimension gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpuzip.choose.bound import ideal_bits
from gpuzip.codecs import MixedLloydMaxQuantizer, Quantizer
from gpuzip.codecs.codes import Codes
from gpuzip.errors import GpuzipError
from gpuzip.plots.style import BLUE, VERMILION, axes_of, labelled, legend_above, small_numbers
from gpuzip.plots.values import Array, Values, matrix
from gpuzip.rotations.spectrum import variances

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Bits = float | Codes | Quantizer[Any]

_LEAST = 1e-5  # least variance that is drawn, relative to the largest


def spectrum(x: Values, bits: Bits = 1.0, ax: Axes | None = None) -> Axes:
    """Draw the variance along each principal direction, falling, and the bits that each dimension gets.

    Parameters
    ----------
    x : (N, D) numbers
        The rows.
    bits : float, fitted MixedLloydMaxQuantizer, or Codes of one, default 1.0
        Mean bits per dimension, which are shared out as the rate-distortion bound of a Gaussian source does;
        or a codec, whose own bits are drawn beside those of the bound.
    ax : matplotlib Axes, optional
        Axes to draw on. A second axis, of bits, is added to it on the right.

    Returns
    -------
    Axes
        The axes that were drawn on.

    Raises
    ------
    GpuzipError
        If x is not a matrix, or bits are no number above 0 and no codec of mixed bits of D columns.

    Notes
    -----
    A spectrum that falls steeply can be compressed further: most directions need no bits.

    Examples
    --------
    >>> import gpuzip, torch
    >>> from matplotlib.figure import Figure
    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> gpuzip.plots.spectrum(x, bits=2, ax=Figure().subplots()).get_ylabel()
    'Variance'
    """
    who = "plots.spectrum"
    rows = torch.from_numpy(matrix(who, "x", x))
    total, own = _bits(who, bits, rows.shape[1])
    falling = variances(rows)
    ax = axes_of(who, ax)
    shown = falling.clamp(min=float(falling[0]) * _LEAST).numpy()
    directions = np.arange(1, len(shown) + 1)
    ax.plot(directions, shown, color=BLUE, linewidth=1.4, label="variance")
    if falling[0] > 0:
        ax.set_yscale("log")
        small_numbers(ax)
    right = ax.twinx()
    ideal = ideal_bits(falling, total).numpy()
    right.plot(directions, ideal, color=VERMILION, linewidth=1, linestyle="--", label="bits, bound")
    if own is not None:
        right.step(directions, own, where="mid", color=VERMILION, linewidth=1.4, label="bits, codec")
    right.set_ylim(0, 1.1 * max(1.0, float(ideal.max()), 0 if own is None else float(own.max())))
    labelled(right, "", "Bits")
    right.spines["right"].set_visible(True)
    ax.set_xlim(1, max(2, len(shown)))
    legend_above(ax, [*ax.get_lines(), *right.get_lines()])
    return labelled(ax, "Principal direction", "Variance")


def _bits(who: str, bits: Bits, d: int) -> tuple[float, Array | None]:
    """Bits per row, and those of a codec by the falling variance of its dimensions."""
    codec = bits.codec if isinstance(bits, Codes) else bits
    if isinstance(codec, MixedLloydMaxQuantizer):
        fitted = codec.learned("plots.spectrum")
        if codec.d != d:
            raise GpuzipError(f"{who}: bits must be of a codec of {d} columns like x; got {codec.d}.")
        order = _variance(fitted).argsort(descending=True, stable=True)
        own = np.zeros(d)
        own[: len(order)] = fitted.bits[order].cpu().numpy()
        return float(own.sum()), own
    if isinstance(codec, bool) or not isinstance(codec, float | int) or not 0 < codec < 64:
        raise GpuzipError(
            f"{who}: bits must be a number above 0 and below 64, or a fitted MixedLloydMaxQuantizer or its "
            f"codes; got {codec!r}."
        )
    return float(codec) * d, None


def _variance(fitted: Any) -> torch.Tensor:
    """(d,) variance of the dimensions that a codec of mixed bits was fitted on."""
    if fitted.errors is not None:
        variance: torch.Tensor = fitted.errors[0]
        return variance
    is_constant = (fitted.scale == 1) & (fitted.bits == 0)  # such columns have a scale of 1
    return torch.where(is_constant, 0.0, fitted.scale.square())
