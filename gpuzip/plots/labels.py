"""Names beside points, where they hide nothing and cannot be read as another point's."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from gpuzip.plots.values import Array, CodecRecall

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT = 8  # points


def label_points(ax: Axes, points: list[CodecRecall]) -> None:
    """Each name at a free place near its point, with a thin line to it from a farther one."""
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()  # else the layout is not known
    pixels = figure.dpi / 72  # of a typographic point
    middles = ax.transData.transform([(p.nbytes, p.recall) for p in points])
    sizes = np.stack([_text_size(ax, p.name) for p in points])
    offsets = np.stack([_offsets(size, pixels) for size in sizes])
    places = middles[:, None] + offsets
    boxes = np.concatenate([places - sizes[:, None] / 2, places + sizes[:, None] / 2], axis=2)
    taken = np.concatenate([_around(middles, 4 * pixels), _around(_along_lines(ax), pixels)])
    order = np.arange(boxes.shape[1]) + 100 * _nearer_to_another(boxes, middles)
    chosen = _least_hidden(boxes, taken, np.array(ax.bbox.extents), pixels**2 * order)
    for point, offset, choice in zip(points, offsets, chosen, strict=True):
        ax.annotate(
            point.name,
            (point.nbytes, point.recall),
            tuple(offset[choice] / pixels),
            textcoords="offset points",
            fontsize=TEXT - 1,
            ha="center",
            va="center",
            arrowprops=_LEADER if choice >= len(_SIDES) else None,
        ).set_in_layout(False)


_SIDES = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)])
_GAPS = (5, 10, 16, 24)  # points
_LEADER = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}


def _offsets(size: Array, pixels: float) -> Array:
    """(C, 2): from a point to the middles of the places for a name of that size, the nearest first."""
    return np.concatenate([_SIDES * (size / 2 + gap * pixels) for gap in _GAPS])


def _nearer_to_another(boxes: Array, middles: Array) -> Array:
    """(P, C) bool: whether a name there would be read as that of another point."""
    beyond = np.maximum(boxes[:, :, None, :2] - middles, middles - boxes[:, :, None, 2:]).clip(0)
    distances = np.hypot(beyond[..., 0], beyond[..., 1])  # (P, C, P)
    own = distances[np.arange(len(middles)), :, np.arange(len(middles))]
    nearer: Array = (distances < 1.3 * own[..., None]).sum(2) > 1
    return nearer


def _least_hidden(boxes: Array, taken: Array, inside: Array, costs: Array) -> list[int]:
    """Which of its C places each of P names takes: one after the other, until none would move.

    boxes: (P, C, 4), taken: (T, 4), inside: (4,), all (x0, y0, x1, y1) in pixels. costs: (P, C), of places
    where nothing is hidden.
    """
    outside = (boxes[..., 2:] - boxes[..., :2]).prod(-1) - _common(boxes, inside[None])
    costs = costs + _common(boxes, taken) + 2 * outside
    chosen = costs.argmin(1).tolist()
    for _ in range(8):
        before = list(chosen)
        for i, own in enumerate(boxes):
            others = np.array([boxes[j, c] for j, c in enumerate(chosen) if j != i]).reshape(-1, 4)
            chosen[i] = int((costs[i] + _common(own, others)).argmin())
        if chosen == before:
            break
    return list(chosen)


def _common(boxes: Array, others: Array) -> Array:
    """(..., 4) and (T, 4) -> (...): the area of each box that the others cover, each counted by itself."""
    high = np.minimum(boxes[..., None, 2:], others[:, 2:])
    low = np.maximum(boxes[..., None, :2], others[:, :2])
    area: Array = (high - low).clip(0).prod(-1).sum(-1)
    return area


def _around(middles: Array, reach: float) -> Array:
    return np.concatenate([middles - reach, middles + reach], axis=1)


def _along_lines(ax: Axes) -> Array:
    """Places along the lines drawn so far, in pixels."""
    steps = np.linspace(0, 1, 60)[:, None]
    parts = [np.empty((0, 2))]
    for line in ax.get_lines():
        corners = line.get_transform().transform(np.asarray(line.get_xydata()))
        parts += [a + steps * (b - a) for a, b in pairwise(corners)]
    spots = np.concatenate(parts)
    finite: Array = spots[np.isfinite(spots).all(1)]
    return finite


def _text_size(ax: Axes, text: str) -> Array:
    label = ax.text(0.5, 0.5, text, transform=ax.transAxes, fontsize=TEXT - 1)
    box = label.get_window_extent()
    label.remove()
    gap = 0.25 * box.height / (1 + text.count("\n"))  # so that neighbours do not touch
    return np.array([box.width + 2 * gap, box.height + gap])
