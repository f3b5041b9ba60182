"""Plots of embeddings and their codes on matplotlib axes. Needs matplotlib.

Every function draws on `ax` and returns it. With ax=None it makes a pyplot figure of the width of a text
column, which notebooks show. No rcParams are changed. Values can be tensors on any device, arrays, lists or
Codes, which are decoded unless a function asks for codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuzip.errors import GpuzipError, MissingDependencyError
from gpuzip.plots.labels import TEXT, label_points
from gpuzip.plots.values import (
    Array,
    CodecRecall,
    Values,
    as_point,
    bits_of,
    bytes_of,
    check_same,
    counted,
    listed,
    numeric,
    one_row,
    whole_edges,
)

__all__ = [
    "CodecRecall",
    "bit_against_byte",
    "float_against_int8",
    "histogram",
    "recall_against_bytes",
    "vector",
]

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _HEIGHT = 3.4, 2.4  # inches, for a column of a paper
_BLUE, _VERMILION = "#0072B2", "#D55E00"  # by Okabe and Ito, distinct for colour-blind readers too
_COLORS = (_BLUE, _VERMILION, "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
_MOST_BARS = 64
_MANY_POINTS = 10_000  # more are rasterized, also in a PDF


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
    ax = _axes(who, ax)
    # Snapping to pixels would make narrow bars of two widths; without an edge they would look pale.
    ax.bar(np.arange(len(values)), values, width=1.0, color=_BLUE, ec=_BLUE, linewidth=0.3, snap=False)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xlim(-0.5, len(values) - 0.5)
    return _labelled(ax, "Dimension (index)", "Value")


def histogram(v: Values, ax: Axes | None = None, bins: int | str | Sequence[float] = _MOST_BARS) -> Axes:
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
    ax = _axes(who, ax)
    ax.stairs(counts, edges, fill=True, color=_BLUE)
    ax.set_ylim(0)
    _thousands(ax)
    return _labelled(ax, "Value", "Number of values")


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
    ax = _axes(who, ax)
    many = values.size > _MANY_POINTS
    ax.scatter(numbers.ravel(), values.ravel(), s=7, color=_BLUE, alpha=0.5, linewidths=0, rasterized=many)
    return _labelled(ax, _byte_axis(ax, numbers), "Float value")


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
    edges = whole_edges(numbers, _MOST_BARS)
    up, down = (np.histogram(numbers[ones == bit], edges)[0] for bit in (1, 0))
    ax = _axes(who, ax)
    ax.stairs(up, edges, fill=True, color=_BLUE)
    ax.stairs(-down, edges, fill=True, color=_VERMILION)
    ax.axhline(0, color="black", linewidth=0.6)
    most_up, most_down = int(up.max()), int(down.max())
    ax.set_ylim(-max(1.2 * most_down, 0.2 * most_up), max(1.2 * most_up, 0.2 * most_down))  # room for text
    for word, color, height, side in (("bit 1", _BLUE, 0.98, "top"), ("bit 0", _VERMILION, 0.02, "bottom")):
        ax.text(
            0.02, height, word, transform=ax.transAxes, color=color, fontsize=TEXT, va=side, weight="bold"
        )
    _thousands(ax)
    width = int(edges[1] - edges[0])
    per_bar = "per code" if width == 1 else f"per {width} codes"
    return _labelled(ax, _byte_axis(ax, numbers), f"Number of values {per_bar}")


def recall_against_bytes(
    rows: Iterable[CodecRecall | Mapping[str, Any]], ax: Axes | None = None, k: int = 10
) -> Axes:
    """Draw recall@k of codecs over the bytes per vector, on a log axis.

    Parameters
    ----------
    rows : iterable of CodecRecall, or mappings of its fields
        One point per codec. Points of a family share a marker and colour and are joined in order of bytes.
    ax : matplotlib Axes, optional
        Axes to draw on.
    k : int, default 10
        The k of recall@k, for the label.

    Returns
    -------
    Axes
        The axes that were drawn on. Names are placed for the present size of the figure.

    Raises
    ------
    GpuzipError
        For no rows, missing fields, bytes of 0 or less, or a recall outside 0 to 1.
    """
    who = "plots.recall_against_bytes"
    points = [as_point(who, row) for row in listed(who, rows)]
    ax = _axes(who, ax, 2.9)
    families: dict[str, list[CodecRecall]] = {}
    for point in points:
        families.setdefault(point.family, []).append(point)
    for number, family in enumerate(families):
        members = sorted(families[family], key=lambda p: p.nbytes)
        ax.plot(
            [p.nbytes for p in members],
            [p.recall for p in members],
            marker=_MARKERS[number % len(_MARKERS)],
            color=_COLORS[number % len(_COLORS)],
            markersize=5,
            linewidth=0.8,
            label=family,
        )
    _bytes_axis(ax, [p.nbytes for p in points])
    _recall_axis(ax, [p.recall for p in points])
    _labelled(ax, "Bytes per vector (log scale)", f"Recall@{k}")
    label_points(ax, points)
    return ax


def _axes(who: str, ax: Axes | None, height: float = _HEIGHT) -> Axes:
    try:
        import matplotlib
        import matplotlib.axes
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{who}: matplotlib is not installed: pip install 'gpuzip[plot]'."
        ) from error
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(_WIDTH, height), layout="constrained")
    elif not isinstance(ax, matplotlib.axes.Axes):
        raise GpuzipError(
            f"{who}: ax must be one matplotlib Axes; got {type(ax).__name__}. Pass fig.subplots(), or None."
        )
    return ax


def _labelled(ax: Axes, x: str, y: str) -> Axes:
    ax.set_xlabel(x, fontsize=TEXT)
    ax.set_ylabel(y, fontsize=TEXT)
    ax.tick_params(labelsize=TEXT)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _thousands(ax: Axes) -> None:
    """Label the y-axis with counts, without fractions or signs."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{abs(count):,.0f}"))


def _byte_axis(ax: Axes, numbers: Array) -> str:
    """Show all 256 codes, so that unused ones are visible. Return the label of the axis."""
    low, high = (-128, 127) if numbers.min() < 0 else (0, 255)
    ax.set_xlim(low - 4, high + 4)
    ax.set_xticks([low, low + 64, low + 128, low + 192, high])
    return f"1-byte code ({'int8' if low else 'uint8'})"


def _bytes_axis(ax: Axes, sizes: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.set_xscale("log", base=2)
    room = 1.5 if max(sizes) > 4 * min(sizes) else 2  # show at least two powers of 2
    ax.set_xlim(min(sizes) / room, max(sizes) * room)
    ax.xaxis.set_major_locator(LogLocator(base=2, numticks=9 if max(sizes) < 10_000 else 6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:{',' if size >= 10_000 else ''}.10g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def _recall_axis(ax: Axes, recalls: list[float]) -> None:
    """Set limits around the recalls, and ticks within 0 to 1."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(recalls), max(recalls)
    room = 0.08 * max(high - low, 0.25)
    bottom, top = low - room, high + 2 * room  # room for names above the highest point
    ax.set_ylim(bottom, top)
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(bottom, top)
    ax.set_yticks([tick for tick in ticks if max(bottom, -1e-9) <= tick <= min(top, 1 + 1e-9)])
