"""Places names beside points so that they overlap nothing and belong clearly to their point."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from gpuzip.plots.style import TEXT
from gpuzip.plots.values import Array, CodecRecall

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def label_points(ax: Axes, points: list[CodecRecall]) -> None:
    """Write each name at a free place near its point, with a thin line from a farther place."""
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()  # computes the layout
    pixels = figure.dpi / 72  # per typographic point
    middles = ax.transData.transform([(p.nbytes, p.recall) for p in points])
    sizes = np.stack([_text_size(ax, p.name) for p in points])
    offsets = np.stack([_offsets(size, pixels) for size in sizes])
    places = middles[:, None] + offsets
    boxes = np.concatenate([places - sizes[:, None] / 2, places + sizes[:, None] / 2], axis=2)
    taken = np.concatenate([_around(middles, 4 * pixels), _around(_along_lines(ax), pixels)])
    order = np.arange(boxes.shape[1]) + 100 * _nearer_to_another(boxes, middles)
    leaders = middles[:, None, None] + np.linspace(0, 1, 20)[:, None] * offsets[:, :, None]
    leaders[:, : len(_SIDES)] = np.nan  # a name at its point has none
    chosen = _least_hidden(boxes, taken, leaders, np.array(ax.bbox.extents), pixels**2 * order)
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
    """Return (C, 2) offsets from a point to the centres of places for its name, nearest first."""
    return np.concatenate([_SIDES * (size / 2 + gap * pixels) for gap in _GAPS])


def _nearer_to_another(boxes: Array, middles: Array) -> Array:
    """Return (P, C) bool: whether a name at a place would seem to belong to another point."""
    beyond = np.maximum(boxes[:, :, None, :2] - middles, middles - boxes[:, :, None, 2:]).clip(0)
    distances = np.hypot(beyond[..., 0], beyond[..., 1])  # (P, C, P)
    own = distances[np.arange(len(middles)), :, np.arange(len(middles))]
    nearer: Array = (distances < 1.3 * own[..., None]).sum(2) > 1
    return nearer


def _least_hidden(boxes: Array, taken: Array, leaders: Array, inside: Array, costs: Array) -> list[int]:
    """Choose one of C places for each of P names, one name after the other, until none would move.

    boxes (P, C, 4), taken (T, 4) and inside (4,) are (x0, y0, x1, y1) in pixels. leaders (P, C, L, 2): places
    along the lines from points to names. costs (P, C): cost of a place without overlap.
    """
    outside = (boxes[..., 2:] - boxes[..., :2]).prod(-1) - _common(boxes, inside[None])
    costs = costs + _common(boxes, taken) + 2 * outside
    chosen = costs.argmin(1).tolist()
    others_area = float((boxes[:, 0, 2:] - boxes[:, 0, :2]).prod(-1).mean()) / 2
    for _ in range(8):
        before = list(chosen)
        for i, own in enumerate(boxes):
            others = np.array([boxes[j, c] for j, c in enumerate(chosen) if j != i]).reshape(-1, 4)
            hidden = _common(own, others) + _crossed(leaders[i], others) * others_area
            chosen[i] = int((costs[i] + hidden).argmin())
        if chosen == before:
            break
    return list(chosen)


def _common(boxes: Array, others: Array) -> Array:
    """Sum the areas that each box (..., 4) has in common with every other box (T, 4)."""
    high = np.minimum(boxes[..., None, 2:], others[:, 2:])
    low = np.maximum(boxes[..., None, :2], others[:, :2])
    area: Array = (high - low).clip(0).prod(-1).sum(-1)
    return area


def _crossed(leaders: Array, others: Array) -> Array:
    """Count the boxes (T, 4) that each line of places (C, L, 2) leads through."""
    spots = leaders[:, :, None]
    within: Array = np.logical_and(spots > others[:, :2], spots < others[:, 2:])
    crossed: Array = np.any(np.all(within, axis=-1), axis=1).sum(-1)
    return crossed


def _around(middles: Array, reach: float) -> Array:
    return np.concatenate([middles - reach, middles + reach], axis=1)


def _along_lines(ax: Axes) -> Array:
    """Return points along the lines drawn so far, in pixels."""
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
    gap = 0.25 * box.height / (1 + text.count("\n"))  # keeps neighbours apart
    return np.array([box.width + 2 * gap, box.height + gap])
