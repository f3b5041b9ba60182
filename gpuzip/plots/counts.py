"""How often each value comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpuzip.plots.style import BLUE, MOST_BARS, axes_of, labelled, thousands
from gpuzip.plots.values import Values, counted, numeric

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def histogram(v: Values, ax: Axes | None = None, bins: int | str | Sequence[float] = MOST_BARS) -> Axes:
    """Draw a histogram of all values of a vector or a matrix.

    Parameters
    ----------
    v : (D,) or (N, D) numbers, or Codes
        The values.
    ax : matplotlib Axes, optional
        Axes to draw on.
    bins : int, str or sequence of float, default 64
        As in numpy.histogram. For integer values an int is an upper bound: every bin is a whole number wide,
        so that all cover equally many numbers.

    Returns
    -------
    Axes
        The axes that were drawn on.

    Raises
    ------
    GpuzipError
        For no values, NaN or inf, or bins that numpy refuses.
    """
    who = "plots.histogram"
    values = numeric(who, "v", v)
    counts, edges = counted(who, values, bins)
    ax = axes_of(who, ax)
    ax.stairs(counts, edges, fill=True, color=BLUE)
    ax.set_ylim(0)
    thousands(ax)
    return labelled(ax, "Value", "Number of values")
