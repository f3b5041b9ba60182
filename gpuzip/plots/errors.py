"""The error of decoded rows, dimension by dimension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from gpuzip.errors import GpuzipError
from gpuzip.plots.style import BLACK, COLORS, DASHES, axes_of, labelled, legend_above, small_numbers
from gpuzip.plots.values import Array, Values, check_same, matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FEW = 0.03  # share of dimensions that may lie below the picture
_MOST = len(COLORS) - 1  # black is the variance's


def error_by_dimension(
    x: Values, codes: Values | Mapping[str, Values], ax: Axes | None = None, by_variance: bool = False
) -> Axes:
    """Draw the mean squared error of each dimension on a log axis, over the variance of the dimension.

    Parameters
    ----------
    x : (N, D) numbers
        The source rows.
    codes : Codes, (N, D) decoded rows, or mapping of names to these
        Codes of the same rows; at most 6.
    ax : matplotlib Axes, optional
        Axes to draw on.
    by_variance : bool, default False
        Order dimensions by falling variance.

    Returns
    -------
    Axes
        The axes that were drawn on. An error of 0 leaves a gap.

    Raises
    ------
    GpuzipError
        If shapes differ, x is not a matrix, or there are no codes or too many.

    Notes
    -----
    The variance is the error of codes of no bits, which decode to the mean. A codec whose line has the shape
    of the variance spends as many bits on each dimension; a flat line is what the best use of bits gives.

    Examples
    --------
    >>> import gpuzip, torch
    >>> from matplotlib.figure import Figure
    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> codes = gpuzip.ScalarQuantizer(bits=4).fit(x).encode(x)
    >>> len(gpuzip.plots.error_by_dimension(x, codes, Figure().subplots()).get_lines())
    2
    """
    who = "plots.error_by_dimension"
    rows = matrix(who, "x", x)
    named = dict(codes) if isinstance(codes, Mapping) else {"error": codes}
    if not 0 < len(named) <= _MOST:
        raise GpuzipError(f"{who}: codes must be 1 to {_MOST} of the same rows; got {len(named)}.")
    errors = {}
    for name, some in named.items():
        decoded = matrix(who, f"codes {name!r}", some)
        check_same(who, "x", rows, f"codes {name!r}", decoded)
        errors[name] = np.square(decoded - rows).mean(0)
    variance = rows.var(0)
    order = np.argsort(-variance, kind="stable") if by_variance else np.arange(rows.shape[1])
    ax = axes_of(who, ax)
    lines = {"variance": (variance, BLACK, ":")}
    lines |= {str(n): (e, COLORS[i], DASHES[i % 3]) for i, (n, e) in enumerate(errors.items())}
    for name, (values, color, dash) in lines.items():
        some = np.where(values[order] > 0, values[order], np.nan)
        ax.plot(some, color=color, linestyle=dash, linewidth=1, label=name)
    ax.set_yscale("log")
    ax.set_ylim(*_limits([variance, *errors.values()]))
    ax.set_xlim(0, max(1, rows.shape[1] - 1))
    legend_above(ax, ncols=2)
    small_numbers(ax)
    return labelled(ax, f"Dimension ({'by falling variance' if by_variance else 'index'})", "Squared error")


def _limits(lines: list[Array]) -> tuple[float | None, float | None]:
    """Limits that show all lines but for the few dimensions that hardly vary."""
    some = [line[line > 0] for line in lines if (line > 0).any()]
    if not some:
        return None, None
    return 0.5 * min(float(np.quantile(line, _FEW)) for line in some), 2 * max(
        float(line.max()) for line in some
    )
