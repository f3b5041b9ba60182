"""The style of all pictures: one set of colours and markers, axes of the width of a text column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpuzip._core.extras import needs
from gpuzip.errors import GpuzipError
from gpuzip.plots.values import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT = 8  # points
WIDTH, HEIGHT = 3.4, 2.4  # inches, for a column of a paper

# By Okabe and Ito, distinct for colour-blind readers too.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, BLACK, SKY = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#000000", "#56B4E9"),
)
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, BLACK, SKY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
DASHES = ("-", "--", "-.", ":")
MOST_BARS = 64
MANY_POINTS = 10_000  # more are rasterized, also in a PDF


def axes_of(who: str, ax: Axes | None, height: float = HEIGHT) -> Axes:
    with needs(f"{who}: matplotlib", "plot"):
        import matplotlib
        import matplotlib.axes
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(WIDTH, height), layout="constrained")
    elif not isinstance(ax, matplotlib.axes.Axes):
        raise GpuzipError(
            f"{who}: ax must be one matplotlib Axes; got {type(ax).__name__}. Pass fig.subplots(), or None."
        )
    return ax


def labelled(ax: Axes, x: str, y: str) -> Axes:
    ax.set_xlabel(x, fontsize=TEXT)
    ax.set_ylabel(y, fontsize=TEXT)
    ax.tick_params(labelsize=TEXT)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def legend_above(ax: Axes, lines: Sequence[Any] | None = None, ncols: int = 3) -> None:
    """Name the lines of an Axes, or those given, in a legend that hides nothing."""
    shown = ax.get_legend_handles_labels()[0] if lines is None else list(lines)
    ax.legend(
        shown,
        [str(line.get_label()) for line in shown],
        ncols=ncols,
        columnspacing=1,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        frameon=False,
        fontsize=TEXT - 1,
    )


def thousands(ax: Axes) -> None:
    """Label the y-axis with counts, without fractions or signs."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{abs(count):,.0f}"))


def small_numbers(ax: Axes) -> None:
    """Label a log y-axis in plain text: 0.1, 0.01, 0.001, then 1e-4 and smaller."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.yaxis.set_major_locator(LogLocator(numticks=7))
    ax.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:.0e}".replace("e-0", "e-") if value < 1e-3 else f"{value:g}")
    )
    ax.yaxis.set_minor_locator(NullLocator())


def byte_axis(ax: Axes, numbers: Array) -> str:
    """Show all 256 codes, so that unused ones are visible. Return the label of the axis."""
    low, high = (-128, 127) if numbers.min() < 0 else (0, 255)
    ax.set_xlim(low - 4, high + 4)
    ax.set_xticks([low, low + 64, low + 128, low + 192, high])
    return f"1-byte code ({'int8' if low else 'uint8'})"


def bytes_axis(ax: Axes, sizes: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.set_xscale("log", base=2)
    room = 1.5 if max(sizes) > 4 * min(sizes) else 2  # show at least two powers of 2
    ax.set_xlim(min(sizes) / room, max(sizes) * room)
    ax.xaxis.set_major_locator(LogLocator(base=2, numticks=9 if max(sizes) < 10_000 else 6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:{',' if size >= 10_000 else ''}.10g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def share_axis(ax: Axes, recalls: list[float]) -> None:
    """Set limits around the recalls, and ticks within 0 to 1."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(recalls), max(recalls)
    room = 0.08 * max(high - low, 0.25)
    bottom, top = low - room, high + 2 * room  # room for names above the highest point
    ax.set_ylim(bottom, top)
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(bottom, top)
    ax.set_yticks([tick for tick in ticks if max(bottom, -1e-9) <= tick <= min(top, 1 + 1e-9)])
