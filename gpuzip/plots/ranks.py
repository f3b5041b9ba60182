"""Where the nearest rows are found after compression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpuzip.errors import GpuzipError
from gpuzip.plots.style import BLACK, BLUE, axes_of, labelled
from gpuzip.plots.values import Array, Values, numeric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGEST = 110.0  # points squared, of the circle of all queries, on axes of 10 ranks
_BLOCK = 256  # queries at a time


def change_of_rank(before: Values, after: Values, ax: Axes | None = None, k: int | None = None) -> Axes:
    """Draw how often the row of each rank before compression has each rank after it.

    Parameters
    ----------
    before : (Q, K) ints
        Ids of the nearest rows of each query by the source rows, nearest first.
    after : (Q, R) ints
        Ids of the rows that the codes find, nearest first.
    ax : matplotlib Axes, optional
        Axes to draw on.
    k : int, optional
        Ranks to draw. Default: K, at most 10.

    Returns
    -------
    Axes
        The axes that were drawn on. The area of a circle is the share of queries. The last line, "later",
        are rows of a rank beyond k, or not found.

    Raises
    ------
    GpuzipError
        If ids are not whole numbers, the numbers of queries differ, or k exceeds the ranks given.

    Examples
    --------
    >>> import gpuzip, torch
    >>> from matplotlib.figure import Figure
    >>> x = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    >>> before = gpuzip.HalfQuantizer().fit(x).encode(x).search(x[:20], k=5).ids
    >>> after = gpuzip.BinaryQuantizer().fit(x).encode(x).search(x[:20], k=5).ids
    >>> gpuzip.plots.change_of_rank(before, after, Figure().subplots()).get_xlabel()
    'Rank before'
    """
    who = "plots.change_of_rank"
    true, found = _ids(who, "before", before), _ids(who, "after", after)
    if len(true) != len(found):
        raise GpuzipError(
            f"{who}: before and after must have one row per query each; got {len(true)} and {len(found)}."
        )
    most = min(true.shape[1], found.shape[1])
    k = min(10, most) if k is None else k
    if not (isinstance(k, int) and 1 <= k <= most):
        raise GpuzipError(f"{who}: k must be a whole number from 1 to {most}; got {k!r}. Pass more ranks.")
    shares = _shares(true[:, :k], found[:, :k])
    ax = axes_of(who, ax, 3.0)
    x, y = np.meshgrid(np.arange(1, k + 1), np.arange(1, k + 2), indexing="ij")
    sizes = _LARGEST * (10 / max(10, k)) ** 2 * shares
    ax.plot([0.5, k + 0.5], [0.5, k + 0.5], color=BLACK, linewidth=0.6, linestyle="--")
    ax.axhline(k + 0.5, color=BLACK, linewidth=0.6)
    ax.scatter(x.ravel(), y.ravel(), s=sizes.ravel(), color=BLUE, linewidths=0)
    ax.set_xlim(0.4, k + 0.6)
    ax.set_ylim(k + 1.6, 0.4)
    ticks = sorted({1, *range(0, k + 1, 1 if k <= 10 else 5), k} - {0})
    ax.set_xticks(ticks)
    ax.set_yticks([*ticks, k + 1], [*map(str, ticks), "later"])
    return labelled(ax, "Rank before", "Rank after")


def _ids(who: str, name: str, ids: Values) -> Array:
    values = np.atleast_2d(numeric(who, name, ids))
    if values.dtype.kind not in "iu":
        raise GpuzipError(f"{who}: {name} must be ids of rows, whole numbers; got {values.dtype}.")
    return values


def _shares(true: Array, found: Array) -> Array:
    """(k, k + 1) share of queries whose row of rank i + 1 has rank j + 1 after, or is not found (last)."""
    k = true.shape[1]
    counts = np.zeros((k, k + 1))
    for start in range(0, len(true), _BLOCK):
        some = slice(start, start + _BLOCK)
        same = true[some, :, None] == found[some, None, :]
        counts[:, :k] += same.sum(0)
        counts[:, k] += (~same.any(2)).sum(0)
    return counts / len(true)
