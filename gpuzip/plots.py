"""Pictures of embeddings and their codes, on matplotlib axes. Needs matplotlib.

Every picture takes `ax`, the axes to draw on, and returns them; with None pyplot makes a figure as wide as a
column of text, which notebooks show. Nothing else is shown and no rcParams are changed. Values can be tensors
on any device, arrays, lists, or Codes, of which the decoded values are drawn where no codes are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from gpuzip.codecs import BinaryQuantizer, ScalarQuantizer
from gpuzip.codes import Codes
from gpuzip.errors import DtypeError, GpuzipError, MissingDependencyError
from gpuzip.rows import Matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Values = Matrix | Codes | Sequence[Any]
Array = np.ndarray[Any, Any]

_WIDTH, _HEIGHT = 3.4, 2.4  # inches: a column of a paper
_TEXT = 8  # points
_BLUE, _VERMILION = "#0072B2", "#D55E00"  # of Okabe and Ito, who chose colours that all can tell apart
_COLORS = (_BLUE, _VERMILION, "#009E73", "#CC79A7", "#E69F00", "#000000", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h")
_MOST_BARS = 64
_MANY_POINTS = 10_000  # more are drawn as pixels, also in a PDF


@dataclass(frozen=True)
class CodecRecall:
    """One codec's point: its name, the family that shares its marker, bytes a vector, recall from 0 to 1."""

    name: str
    family: str
    nbytes: float
    recall: float


def vector(v: Values, ax: Axes | None = None) -> Axes:
    """Bars of one vector over its dimensions.

    v: (D,) or (1, D) numbers, or Codes of one row. Raises GpuzipError for more rows, none, NaN or inf.
    """
    who = "plots.vector"
    values = _one_row(who, _numbers(who, "v", v))
    ax = _axes(who, ax)
    # Snapped to pixels, narrow bars would come in two widths; without an edge they would be pale.
    ax.bar(np.arange(len(values)), values, width=1.0, color=_BLUE, ec=_BLUE, linewidth=0.3, snap=False)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xlim(-0.5, len(values) - 0.5)
    return _labelled(ax, "Dimension (index)", "Value")


def histogram(v: Values, ax: Axes | None = None, bins: int | str | Sequence[float] = _MOST_BARS) -> Axes:
    """How often each value comes: a histogram of all values of a vector or a matrix.

    v: (D,) or (N, D) numbers, or Codes. bins: as numpy.histogram has them; for integers at most so many, each
    a whole number wide, as else some bars would hold more numbers than others.
    Raises GpuzipError for no values, NaN or inf, or bins that numpy refuses.
    """
    who = "plots.histogram"
    values = _numbers(who, "v", v)
    counts, edges = _counted(who, values, bins)
    ax = _axes(who, ax)
    ax.stairs(counts, edges, fill=True, color=_BLUE)
    ax.set_ylim(0)
    _thousands(ax)
    return _labelled(ax, "Value", "Number of values")


def float_against_int8(x: Values, codes: Values, ax: Axes | None = None) -> Axes:
    """Each float value over its 1-byte code, a point a value.

    x: (D,) or (N, D) floats. codes: Codes of an 8-bit ScalarQuantizer, or as many whole numbers of one byte,
    signed or not. Raises GpuzipError when shapes differ or codes are no bytes.
    """
    who = "plots.float_against_int8"
    values = _numbers(who, "x", x)
    numbers = _bytes_of(who, "codes", codes)
    _check_same(who, "x", values, "codes", numbers)
    ax = _axes(who, ax)
    many = values.size > _MANY_POINTS
    ax.scatter(numbers.ravel(), values.ravel(), s=7, color=_BLUE, alpha=0.5, linewidths=0, rasterized=many)
    return _labelled(ax, _byte_axis(ax, numbers), "Float value")


def bit_against_byte(bits: Values, bytes: Values, ax: Axes | None = None) -> Axes:
    """Which bytes the values of bit 1 have, upwards, and those of bit 0, downwards: two histograms.

    A scatter of bits over bytes hides how many points lie on each other; here every value counts.
    bits: Codes of a BinaryQuantizer, or (D,) or (N, D) of 0 and 1. bytes: Codes of an 8-bit
    ScalarQuantizer, or as many whole numbers of one byte. Raises GpuzipError for others, or for other shapes.
    """
    who = "plots.bit_against_byte"
    ones, numbers = _bits_of(who, "bits", bits), _bytes_of(who, "bytes", bytes)
    _check_same(who, "bits", ones, "bytes", numbers)
    edges = _whole_edges(numbers, _MOST_BARS)
    up, down = (np.histogram(numbers[ones == bit], edges)[0] for bit in (1, 0))
    ax = _axes(who, ax)
    ax.stairs(up, edges, fill=True, color=_BLUE)
    ax.stairs(-down, edges, fill=True, color=_VERMILION)
    ax.axhline(0, color="black", linewidth=0.6)
    most_up, most_down = int(up.max()), int(down.max())
    ax.set_ylim(-max(1.2 * most_down, 0.2 * most_up), max(1.2 * most_up, 0.2 * most_down))  # room for words
    for word, color, height, side in (("bit 1", _BLUE, 0.98, "top"), ("bit 0", _VERMILION, 0.02, "bottom")):
        ax.text(
            0.02, height, word, transform=ax.transAxes, color=color, fontsize=_TEXT, va=side, weight="bold"
        )
    _thousands(ax)
    width = int(edges[1] - edges[0])
    per_bar = "per code" if width == 1 else f"per {width} codes"
    return _labelled(ax, _byte_axis(ax, numbers), f"Number of values {per_bar}")


def recall_against_bytes(
    rows: Iterable[CodecRecall | Mapping[str, Any]], ax: Axes | None = None, k: int = 10
) -> Axes:
    """Recall@k of codecs over the bytes that a vector takes, which are on a log axis.

    rows: CodecRecall, or mappings of its fields. A family has a marker and a colour, and its points are
    joined in order of bytes. Names stand beside the points, placed for the size that the figure has now.
    Raises GpuzipError for no rows, missing fields, bytes that are not above 0 or a recall outside 0 to 1.
    """
    who = "plots.recall_against_bytes"
    points = [_point(who, row) for row in _listed(who, rows)]
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
    _label_points(ax, points)
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
            f"{who}: ax is {type(ax).__name__}, one matplotlib Axes is needed. Pass fig.subplots(), or None."
        )
    return ax


def _labelled(ax: Axes, x: str, y: str) -> Axes:
    ax.set_xlabel(x, fontsize=_TEXT)
    ax.set_ylabel(y, fontsize=_TEXT)
    ax.tick_params(labelsize=_TEXT)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _thousands(ax: Axes) -> None:
    """Counts upwards and downwards: no fractions, no signs."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{abs(count):,.0f}"))


def _byte_axis(ax: Axes, numbers: Array) -> str:
    """All 256 codes, so that those not used are seen. Returns what the axis is called."""
    low, high = (-128, 127) if numbers.min() < 0 else (0, 255)
    ax.set_xlim(low - 4, high + 4)
    ax.set_xticks([low, low + 64, low + 128, low + 192, high])
    return f"1-byte code ({'int8' if low else 'uint8'})"


def _bytes_axis(ax: Axes, sizes: list[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    ax.set_xscale("log", base=2)
    room = 1.5 if max(sizes) > 4 * min(sizes) else 2  # at least two powers of 2
    ax.set_xlim(min(sizes) / room, max(sizes) * room)
    ax.xaxis.set_major_locator(LogLocator(base=2, numticks=9 if max(sizes) < 10_000 else 6))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:{',' if size >= 10_000 else ''}.10g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def _recall_axis(ax: Axes, recalls: list[float]) -> None:
    """From below the least to above the greatest, with no tick below 0 or above 1."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(recalls), max(recalls)
    room = 0.08 * max(high - low, 0.25)
    bottom, top = low - room, high + 2 * room  # names stand above the highest
    ax.set_ylim(bottom, top)
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(bottom, top)
    ax.set_yticks([tick for tick in ticks if max(bottom, -1e-9) <= tick <= min(top, 1 + 1e-9)])


def _label_points(ax: Axes, points: list[CodecRecall]) -> None:
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
            fontsize=_TEXT - 1,
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
    label = ax.text(0.5, 0.5, text, transform=ax.transAxes, fontsize=_TEXT - 1)
    box = label.get_window_extent()
    label.remove()
    gap = 0.25 * box.height / (1 + text.count("\n"))  # so that neighbours do not touch
    return np.array([box.width + 2 * gap, box.height + gap])


def _numbers(who: str, name: str, v: Values) -> Array:
    """(D,) or (N, D) finite numbers of any dtype, on the CPU."""
    if isinstance(v, Codes):
        v = v.decode(torch.float32)
    if isinstance(v, Tensor):
        v = v.detach().cpu()
        v = v.float() if v.dtype == torch.bfloat16 else v
    try:
        values = np.asarray(v)
    except (TypeError, ValueError, RuntimeError) as error:
        raise GpuzipError(f"{who}: {name} is no vector or matrix of numbers: {error}") from error
    if values.dtype.name == "bfloat16":
        values = values.astype(np.float32)
    if values.dtype.kind not in "biuf":
        raise DtypeError(f"{who}: {name} came as {values.dtype}, real numbers are needed. Convert it.")
    if values.ndim not in (1, 2):
        raise GpuzipError(
            f"{who}: {name} came as {values.shape}, (D,) or (N, D) is needed. Pass one vector or one matrix."
        )
    if not values.size:
        raise GpuzipError(f"{who}: {name} came as {values.shape}, it has no values. Pass at least one.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise GpuzipError(
            f"{who}: {name} holds NaN or inf ({bad} of {values.size} values). Drop or replace them."
        )
    return values


def _one_row(who: str, values: Array) -> Array:
    if values.ndim == 2 and len(values) > 1:
        raise GpuzipError(f"{who}: v came as {values.shape}, one vector is needed. Pass one row, v[0].")
    return values.ravel()


def _bytes_of(who: str, name: str, codes: Values) -> Array:
    """Whole numbers of one byte, of the shape of the values that they stand for."""
    if isinstance(codes, Codes):
        codec = codes.codec
        if not isinstance(codec, ScalarQuantizer) or codec.bits != 8:
            raise GpuzipError(f"{who}: {name} are of {codec!r}. Pass codes of a ScalarQuantizer of 8 bits.")
        codes = codes.data.view(torch.int8) if codec.signed else codes.data
    numbers = _numbers(who, name, codes)
    least, most = numbers.min(), numbers.max()
    one_byte = (least >= 0 and most <= 255) or (least >= -128 and most <= 127)
    if numbers.dtype.kind not in "iu" or not one_byte:
        raise GpuzipError(
            f"{who}: {name} are {numbers.dtype} from {least} to {most}, integers of one byte are needed. "
            "Pass Codes of a ScalarQuantizer of 8 bits, or uint8 or int8."
        )
    return numbers


def _bits_of(who: str, name: str, bits: Values) -> Array:
    """True for bit 1, of the shape of the values that they stand for."""
    if isinstance(bits, Codes):
        if not isinstance(bits.codec, BinaryQuantizer):
            raise GpuzipError(f"{who}: {name} are of {bits.codec!r}. Pass codes of a BinaryQuantizer.")
        data = bits.data.cpu().numpy()
        bits = np.unpackbits(data, axis=1, count=bits.codec.d)
    values = _numbers(who, name, bits)
    if not ((values == 0) | (values == 1)).all():
        raise GpuzipError(
            f"{who}: {name} run from {values.min()} to {values.max()}, 0 and 1 are needed. "
            "Pass Codes of a BinaryQuantizer, or unpack the bits with numpy.unpackbits."
        )
    ones: Array = values == 1
    return ones


def _check_same(who: str, name: str, values: Array, other_name: str, others: Array) -> None:
    """The same shape, a vector being a matrix of one row."""
    if np.atleast_2d(values).shape != np.atleast_2d(others).shape:
        raise GpuzipError(
            f"{who}: {name} came as {values.shape}, {other_name} as {others.shape}, one shape is needed. "
            "Pass those of the same rows."
        )


def _counted(who: str, values: Array, bins: int | str | Sequence[float]) -> tuple[Array, Array]:
    if isinstance(bins, int) and bins > 0 and values.dtype.kind in "biu":
        bins = _whole_edges(values, bins).tolist()
    try:
        return np.histogram(values.astype(np.float64), bins)
    except (TypeError, ValueError) as error:
        raise GpuzipError(
            f"{who}: bins is {bins!r}, which numpy.histogram refuses: {error}. Pass a whole number above 0."
        ) from error


def _whole_edges(numbers: Array, most: int) -> Array:
    """Edges of at most `most` bars, each as many whole numbers wide, between the numbers."""
    low, high = int(numbers.min()), int(numbers.max())
    width = -(-(high - low + 1) // most)
    count = -(-(high - low + 1) // width)
    return low - 0.5 + width * np.arange(count + 1)


def _listed(who: str, rows: Iterable[CodecRecall | Mapping[str, Any]]) -> list[Any]:
    listed = list(rows) if isinstance(rows, Iterable) and not isinstance(rows, str | Mapping) else []
    if not listed:
        raise GpuzipError(
            f"{who}: rows is a {type(rows).__name__} with no rows, CodecRecall or mappings are needed. "
            "Pass a list of at least one."
        )
    return listed


def _point(who: str, row: CodecRecall | Mapping[str, Any]) -> CodecRecall:
    names = [field.name for field in fields(CodecRecall)]
    if isinstance(row, Mapping):
        if set(row) != set(names):
            raise GpuzipError(f"{who}: a row has {sorted(map(str, row))}, {', '.join(names)} are needed.")
        row = CodecRecall(**row)
    if not isinstance(row, CodecRecall):
        raise GpuzipError(
            f"{who}: a row is {row!r}, CodecRecall or a mapping of {', '.join(names)} is needed."
        )
    try:
        nbytes, recall = float(row.nbytes), float(row.recall)
    except (TypeError, ValueError):
        nbytes = recall = np.nan
    if not (0 < nbytes < np.inf and 0 <= recall <= 1):
        raise GpuzipError(
            f"{who}: {row.name!r} has {row.nbytes!r} bytes and recall {row.recall!r}; bytes above 0 "
            "and a recall from 0 to 1 are needed. Pass gpuzip.recall(ids, truth)."
        )
    return CodecRecall(str(row.name), str(row.family), nbytes, recall)
