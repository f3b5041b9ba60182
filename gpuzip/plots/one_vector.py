"""One vector as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuzip.plots.style import BLUE, axes_of, labelled
from gpuzip.plots.values import Values, numeric, one_row

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def vector(v: Values, ax: Axes | None = None) -> Axes:
    """Draw one vector as bars over its dimensions.

    Parameters
    ----------
    v : (D,) or (1, D) numbers, or Codes of one row
        The vector.
    ax : matplotlib Axes, optional
        Axes to draw on.

    Returns
    -------
    Axes
        The axes that were drawn on.

    Raises
    ------
    GpuzipError
        For several rows, no values, NaN or inf.
    """
    who = "plots.vector"
    values = one_row(who, numeric(who, "v", v))
    ax = axes_of(who, ax)
    # Snapping to pixels would make narrow bars of two widths; without an edge they would look pale.
    ax.bar(np.arange(len(values)), values, width=1.0, color=BLUE, ec=BLUE, linewidth=0.3, snap=False)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xlim(-0.5, len(values) - 0.5)
    return labelled(ax, "Dimension (index)", "Value")
