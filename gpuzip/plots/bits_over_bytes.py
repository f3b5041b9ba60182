"""Bits over bytes of the same values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuzip.plots.style import BLUE, MOST_BARS, TEXT, VERMILION, axes_of, byte_axis, labelled, thousands
from gpuzip.plots.values import Values, bits_of, bytes_of, check_same, whole_edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def bit_against_byte(bits: Values, bytes: Values, ax: Axes | None = None) -> Axes:
    """Draw histograms of the bytes of values with bit 1, upwards, and with bit 0, downwards.

    Parameters
    ----------
    bits : Codes of a BinaryQuantizer, or (D,) or (N, D) of 0 and 1
        The bits.
    bytes : Codes of an 8-bit ScalarQuantizer, or whole numbers
        One byte per value.
    ax : matplotlib Axes, optional
        Axes to draw on.

    Returns
    -------
    Axes
        The axes that were drawn on.

    Raises
    ------
    GpuzipError
        If the shapes differ, bits are not 0 and 1 or bytes are not bytes.

    Notes
    -----
    A scatter plot of bits over bytes would hide how many points coincide.
    """
    who = "plots.bit_against_byte"
    ones, numbers = bits_of(who, "bits", bits), bytes_of(who, "bytes", bytes)
    check_same(who, "bits", ones, "bytes", numbers)
    edges = whole_edges(numbers, MOST_BARS)
    up, down = (np.histogram(numbers[ones == bit], edges)[0] for bit in (1, 0))
    ax = axes_of(who, ax)
    ax.stairs(up, edges, fill=True, color=BLUE)
    ax.stairs(-down, edges, fill=True, color=VERMILION)
    ax.axhline(0, color="black", linewidth=0.6)
    most_up, most_down = int(up.max()), int(down.max())
    ax.set_ylim(-max(1.2 * most_down, 0.2 * most_up), max(1.2 * most_up, 0.2 * most_down))  # room for text
    for word, color, height, side in (("bit 1", BLUE, 0.98, "top"), ("bit 0", VERMILION, 0.02, "bottom")):
        ax.text(
            0.02, height, word, transform=ax.transAxes, color=color, fontsize=TEXT, va=side, weight="bold"
        )
    thousands(ax)
    width = int(edges[1] - edges[0])
    per_bar = "per code" if width == 1 else f"per {width} codes"
    return labelled(ax, byte_axis(ax, numbers), f"Number of values {per_bar}")
