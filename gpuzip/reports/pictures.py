"""The pictures of a report, as SVG that takes its colours and its font from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from gpuzip import plots
from gpuzip.plots.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, WIDTH
from gpuzip.reports.evidence import Evidence
from gpuzip.reports.rows import ReportRow, Setting

_COLORS = {
    BLACK: "currentColor",
    BLUE: "var(--gz-blue)",
    VERMILION: "var(--gz-vermilion)",
    GREEN: "var(--gz-green)",
    PURPLE: "var(--gz-purple)",
    ORANGE: "var(--gz-orange)",
    SKY: "var(--gz-sky)",
}
_MOST_VALUES = 1 << 20  # of the histogram


@dataclass(frozen=True)
class Picture:
    """A picture of a page: `svg` says by `title` and `alt` what it shows, and a caption stands below it."""

    name: str
    title: str
    caption: str
    alt: str
    svg: str


def fronts(rows: Sequence[ReportRow], s: Setting, evidence: Evidence, prefix: str) -> list[Picture]:
    """Recall and cosine over bytes."""
    least, most = rows[0], rows[-1]
    sizes = f"from {least.spec} with {least.code_size} bytes per row to {most.spec} with {most.code_size}"
    return [
        _picture(
            prefix,
            "recall",
            f"Recall@{s.k} by bytes per row",
            "Filled points are the best of their size: no smaller codec finds as much.",
            f"{len(rows)} codecs, {sizes}: recall from {least.recall:.3f} to {most.recall:.3f}.",
            lambda ax: plots.pareto(rows, ax, k=s.k),
            3.0,
        ),
        _picture(
            prefix,
            "cosine",
            "Mean cosine by bytes per row",
            "No code of a Gaussian source with the covariance of these rows passes the dashed line.",
            f"{len(rows)} codecs, {sizes}: cosine from {least.row_cosine:.4f} to {most.row_cosine:.4f}, and "
            f"the bound, which is {least.bound_cosine:.4f} at {least.code_size} bytes.",
            lambda ax: plots.pareto(rows, ax, "row_cosine", bound=evidence.fitted),
            3.0,
        ),
    ]


def details(s: Setting, evidence: Evidence, prefix: str) -> list[Picture]:
    """Errors, bits, ranks, codewords and values."""
    e = evidence
    lines, held = ", ".join(e.decoded), e.held_out
    made = [_ranks(f"ranks-{i}", spec, s, e, prefix) for i, spec in enumerate(e.after)]
    made += [
        _picture(
            prefix,
            "spectrum",
            "Variance by direction, and bits",
            "Directions of little variance get few bits or none. A steep fall can be compressed further.",
            f"Variance along the {s.d} principal directions of the rows, falling, and the bits that each "
            "gets by the bound" + (" and by the codec of mixed bits." if e.mixed is not None else "."),
            lambda ax: plots.spectrum(e.fitted, 1.0 if e.mixed is None else e.mixed, ax),
            3.0,
        ),
        _picture(
            prefix,
            "errors",
            "Error by dimension",
            "The dotted variance is what codes of no bits would lose.",
            f"Mean squared error of each of the {s.d} dimensions, on a log axis, for {lines}, below the "
            "variance of the dimension.",
            lambda ax: plots.error_by_dimension(held, e.decoded, ax),
            2.7,
        ),
    ]
    if e.words is not None:
        spec, codes = e.words
        made.append(
            _picture(
                prefix,
                "codewords",
                f"Use of codewords: {spec}",
                "A flat line at 1 would use all bits. Codewords at 0 are wasted.",
                f"How many rows have each codeword of {spec}, relative to equal use, from the most used to "
                "the least.",
                lambda ax: plots.use_of_codewords(codes, ax),
                2.7,
            )
        )
    values = held[: max(1, _MOST_VALUES // s.d)]
    made.append(
        _picture(
            prefix,
            "values",
            "Values",
            "How often each value comes in the rows, over all dimensions.",
            f"Histogram of values from {float(values.min()):.3g} to {float(values.max()):.3g}, with a mean "
            f"of {float(values.mean()):.3g}.",
            lambda ax: plots.histogram(values, ax),
            2.7,
        )
    )
    return made


def _ranks(name: str, spec: str, s: Setting, e: Evidence, prefix: str) -> Picture:
    before, after = e.before, e.after[spec]
    kept = float((before[:, :1] == after[:, :1]).double().mean())
    return _picture(
        prefix,
        name,
        f"Change of rank: {spec}",
        "The area of a circle is the share of queries; rows on the diagonal keep their rank.",
        f"Ranks of the {before.shape[1]} nearest rows before and after {spec}: the nearest row stays nearest "
        f"for {kept:.0%} of the queries.",
        lambda ax: plots.change_of_rank(before, after, ax),
        3.0,
    )


def _picture(
    prefix: str, name: str, title: str, caption: str, alt: str, draw: Callable[[Any], Any], height: float
) -> Picture:
    id = f"{prefix}-{name}"
    return Picture(id, title, caption, alt, _accessible(_svg(draw, id, height), id, title, alt))


def _svg(draw: Callable[[Any], Any], salt: str, height: float) -> str:
    """The text of an SVG: the same for the same data, and text as text."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "svg.fonttype": "none", "svg.hashsalt": salt}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def _accessible(svg: str, id: str, title: str, alt: str) -> str:
    """An inline picture with a name and a description, in colours that a style sheet sets."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for color, variable in _COLORS.items():
        svg = re.sub(re.escape(color), variable, svg, flags=re.IGNORECASE)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    used = set(re.findall(r"#([\w-]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: f' id="{id}-{found[1]}"' if found[1] in used else "", svg)
    svg = re.sub(r"(url\(|href=\")#([\w-]+)", rf"\1#{id}-\2", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    names = f'<title id="{id}-title">{escape(title)}</title><desc id="{id}-desc">{escape(alt)}</desc>'
    opening = (
        f'<svg class="gz-svg" role="img" aria-labelledby="{id}-title" aria-describedby="{id}-desc" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]}>{names}'
    )
    return opening + svg[svg.index(">") + 1 :].strip()
