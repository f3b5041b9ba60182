"""Pictures of matplotlib as SVG inside of a page, which sets their colours and their font."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from gpuzip.plots.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, WIDTH

_COLORS = {
    BLACK: "currentColor",
    BLUE: "var(--gz-blue)",
    VERMILION: "var(--gz-vermilion)",
    GREEN: "var(--gz-green)",
    PURPLE: "var(--gz-purple)",
    ORANGE: "var(--gz-orange)",
    SKY: "var(--gz-sky)",
}


@dataclass(frozen=True)
class Picture:
    """A picture of a page: `svg` says what it shows, by title and alt, and a caption stands below it."""

    title: str
    caption: str
    svg: str


def picture(
    id: str, title: str, caption: str, alt: str, draw: Callable[[Any], Any], height: float = 2.7
) -> Picture:
    """Draw on an Axes of a column's width, and make it part of a page. height: in inches."""
    return Picture(title, caption, _accessible(_svg(draw, id, height), id, title, alt))


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
    svg = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)  # styles would be the page's
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
