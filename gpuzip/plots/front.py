"""Quality of codecs over bytes, the front of the best, and the bound that no code passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpuzip.choose.bound import cosine_of, distortion
from gpuzip.errors import GpuzipError
from gpuzip.plots.labels import label_points
from gpuzip.plots.style import BLACK, BLUE, VERMILION, axes_of, bytes_axis, labelled, legend_above, share_axis
from gpuzip.plots.values import CodecRecall, Values, unit_variances

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Quality = Literal["recall", "rescored_recall", "row_cosine"]

_AXES = {"recall": "Recall@{k}", "rescored_recall": "Recall@{k}, rescored", "row_cosine": "Mean cosine"}
_STEPS = 65  # sizes at which the bound is drawn


@dataclass(frozen=True)
class _Point:
    spec: str
    code_size: float
    quality: float


def pareto(
    rows: Iterable[Any],
    ax: Axes | None = None,
    quality: Quality = "recall",
    k: int = 10,
    bound: Values | None = None,
    names: bool = True,
) -> Axes:
    """Draw the quality of codecs over their bytes per row, on a log axis, and join the best of each size.

    Parameters
    ----------
    rows : iterable of Tried, of rows of a Report, or of mappings
        One point per codec. Each has `spec`, `code_size` (bytes per row) and the quality by its name.
    ax : matplotlib Axes, optional
        Axes to draw on.
    quality : {"recall", "rescored_recall", "row_cosine"}, default "recall"
        What to draw.
    k : int, default 10
        The k of recall@k, for the label.
    bound : (N, D) numbers, optional
        Rows like those compressed: draws the mean cosine that no code of a Gaussian source of their
        covariance passes. For "row_cosine" alone.
    names : bool, default True
        Write the spec beside each point.

    Returns
    -------
    Axes
        The axes that were drawn on. Filled points are on the front: no smaller codec has as much quality.

    Raises
    ------
    GpuzipError
        For no rows, rows without such a quality, sizes of 0 or less, or a bound of another quality.

    Examples
    --------
    >>> import gpuzip, torch
    >>> from matplotlib.figure import Figure
    >>> x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    >>> codecs = [{"spec": "a", "code_size": 8, "recall": 0.9}, {"spec": "b", "code_size": 4, "recall": 0.7}]
    >>> gpuzip.plots.pareto(codecs, Figure().subplots()).get_ylabel()
    'Recall@10'
    """
    who = "plots.pareto"
    if quality not in _AXES:
        raise GpuzipError(f"{who}: quality must be one of {', '.join(_AXES)}; got {quality!r}.")
    if bound is not None and quality != "row_cosine":
        raise GpuzipError(f"{who}: bound must be given with quality='row_cosine'; got {quality!r}. Omit it.")
    points = _points(who, rows, quality)
    variances = None if bound is None else unit_variances(who, "bound", bound)
    ax = axes_of(who, ax, 2.9)
    bytes_axis(ax, [p.code_size for p in points])
    ax.set_xlim(left=ax.get_xlim()[0] / 2)  # room for names
    front, behind = _by_front(points)
    if variances is not None:
        _bound_line(ax, variances)
    drawn = {"linestyle": "none", "marker": "o", "markersize": 5, "markeredgewidth": 1}
    ax.plot(*_steps(front), color=BLUE, linewidth=0.8)
    _marks(ax, front, {**drawn, "color": BLUE, "label": "best of its size"})
    _marks(ax, behind, {**drawn, "color": VERMILION, "markerfacecolor": "none", "label": "others"})
    share_axis(ax, [p.quality for p in points])
    legend_above(ax)
    labelled(ax, "Bytes per row (log scale)", _AXES[quality].format(k=k))
    if names:
        label_points(ax, [CodecRecall(p.spec, "", p.code_size, p.quality) for p in points])
    return ax


def _points(who: str, rows: Iterable[Any], quality: str) -> list[_Point]:
    found = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, str | Mapping) else []
    if not found:
        raise GpuzipError(
            f"{who}: rows must be a list of at least one codec that was tried; got {type(rows).__name__}. "
            "Pass gpuzip.pareto(x)."
        )
    return [_point(who, row, quality) for row in found]


def _point(who: str, row: Any, quality: str) -> _Point:
    fields = dict(row) if isinstance(row, Mapping) else None
    spec, size, value = (
        getattr(row, name, np.nan) if fields is None else fields.get(name, np.nan)
        for name in ("spec", "code_size", quality)
    )
    if not (_is_number(size) and 0 < float(size) < np.inf and _is_number(value) and -1 <= float(value) <= 1):
        raise GpuzipError(
            f"{who}: a row must have a code_size above 0 and a {quality} of at most 1; got {size!r} and "
            f"{value!r} of {spec!r}. Pass gpuzip.pareto(x)."
        )
    return _Point(str(spec), float(size), float(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int | np.number) and not isinstance(value, bool)


def _by_front(points: list[_Point]) -> tuple[list[_Point], list[_Point]]:
    """Points that are better than all smaller ones, by rising bytes, and the others."""
    front: list[_Point] = []
    for point in sorted(points, key=lambda p: (p.code_size, -p.quality)):
        if not front or point.quality > front[-1].quality:
            front.append(point)
    return front, [point for point in points if point not in front]


def _steps(front: list[_Point]) -> tuple[list[float], list[float]]:
    """Corners of the line of the best quality in at most so many bytes."""
    corners = [
        (p.code_size, q)
        for p, before in zip(front, [None, *front], strict=False)
        for q in ([p.quality] if before is None else [before.quality, p.quality])
    ]
    return [x for x, _ in corners], [y for _, y in corners]


def _marks(ax: Axes, points: list[_Point], style: dict[str, Any]) -> None:
    if points:
        ax.plot([p.code_size for p in points], [p.quality for p in points], **style)


def _bound_line(ax: Axes, variances: Any) -> None:
    sizes = np.geomspace(*ax.get_xlim(), _STEPS)
    cosines = [cosine_of(distortion(variances, 8 * size)) for size in sizes]
    ax.plot(sizes, cosines, color=BLACK, linewidth=1, linestyle="--", label="bound")
