"""Floats over their codes of one byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuzip.plots.style import BLUE, MANY_POINTS, axes_of, byte_axis, labelled
from gpuzip.plots.values import Values, bytes_of, check_same, numeric

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def float_against_int8(x: Values, codes: Values, ax: Axes | None = None) -> Axes:
    """Draw each float value over its 1-byte code, one point per value.

    Parameters
    ----------
    x : (D,) or (N, D) floats
        The values.
    codes : Codes of an 8-bit ScalarQuantizer, or whole numbers
        One byte per value, signed or unsigned.
    ax : matplotlib Axes, optional
        Axes to draw on.

    Returns
    -------
    Axes
        The axes that were drawn on.

    Raises
    ------
    GpuzipError
        If the shapes differ or codes are not bytes.
    """
    who = "plots.float_against_int8"
    values = numeric(who, "x", x)
    numbers = bytes_of(who, "codes", codes)
    check_same(who, "x", values, "codes", numbers)
    ax = axes_of(who, ax)
    many = values.size > MANY_POINTS
    ax.scatter(numbers.ravel(), values.ravel(), s=7, color=BLUE, alpha=0.5, linewidths=0, rasterized=many)
    return labelled(ax, byte_axis(ax, numbers), "Float value")
