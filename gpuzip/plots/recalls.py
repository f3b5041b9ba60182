"""Recall of families of codecs over bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from gpuzip.plots.labels import label_points
from gpuzip.plots.style import COLORS, MARKERS, axes_of, bytes_axis, labelled, share_axis
from gpuzip.plots.values import CodecRecall, as_point, listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    ax = axes_of(who, ax, 2.9)
    families: dict[str, list[CodecRecall]] = {}
    for point in points:
        families.setdefault(point.family, []).append(point)
    for number, family in enumerate(families):
        members = sorted(families[family], key=lambda p: p.nbytes)
        ax.plot(
            [p.nbytes for p in members],
            [p.recall for p in members],
            marker=MARKERS[number % len(MARKERS)],
            color=COLORS[number % len(COLORS)],
            markersize=5,
            linewidth=0.8,
            label=family,
        )
    bytes_axis(ax, [p.nbytes for p in points])
    share_axis(ax, [p.recall for p in points])
    labelled(ax, "Bytes per vector (log scale)", f"Recall@{k}")
    label_points(ax, points)
    return ax
