"""A report as a page of HTML, which needs no other file, and as a part of one for notebooks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from html import escape

from gpuzip.errors import MissingDependencyError
from gpuzip.reports.evidence import Evidence
from gpuzip.reports.pictures import Picture
from gpuzip.reports.rows import BoundRow, Choice, ReportRow, Setting
from gpuzip.reports.sheet import PAGE, SHEET
from gpuzip.reports.shown import details, fronts
from gpuzip.reports.text import NONE, cells, how, lines, size

_GROUPS = (("Size", 3), ("Quality", 4), ("Speed here, per second", 3))
_READ = (
    "No codec of as few bytes has as much recall as one marked best. The bound is what codes of so many "
    "bytes can reach at most."
)
_EMPTY = '<span aria-hidden="true">&ndash;</span><span class="gz-hidden">none</span>'
_NO_PICTURES = '<p class="gz-note">Pictures need matplotlib: <code>pip install "gpuzip[plot]"</code>.</p>'


def page(
    rows: Sequence[ReportRow],
    bound: Sequence[BoundRow],
    choices: Sequence[Choice],
    setting: Setting,
    evidence: Evidence,
) -> str:
    """The whole page."""
    title = f"Compression report: {setting.n:,} x {setting.d:,} vectors"
    body = _content(rows, bound, choices, setting, evidence, 1)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{SHEET}{PAGE}</style>\n</head>\n"
        f'<body class="gz-page">\n{body}\n</body>\n</html>\n'
    )


def fragment(
    rows: Sequence[ReportRow],
    bound: Sequence[BoundRow],
    choices: Sequence[Choice],
    setting: Setting,
    evidence: Evidence,
) -> str:
    """The same below a heading of a notebook."""
    return f"<style>\n{SHEET}</style>\n{_content(rows, bound, choices, setting, evidence, 3)}"


def _content(
    rows: Sequence[ReportRow],
    bound: Sequence[BoundRow],
    choices: Sequence[Choice],
    setting: Setting,
    evidence: Evidence,
    level: int,
) -> str:
    """level: of the first heading."""
    prefix = "gz-" + hashlib.blake2b(repr((rows, setting)).encode(), digest_size=4).hexdigest()
    try:
        first = _figures(fronts(rows, setting, evidence, prefix), level + 2, " gz-two")
        closer = _figures(details(setting, evidence, prefix), level + 2)
    except (ImportError, MissingDependencyError):
        first, closer = _NO_PICTURES, ""
    sections = [
        _section("What to choose", _cards(choices, level + 2), prefix, level + 1),
        _section("Quality by size", first, prefix, level + 1),
        _section("Every codec", _table(rows, bound, setting, prefix), prefix, level + 1),
        _section("A closer look", closer, prefix, level + 1) if closer else "",
        _section("How this was measured", _how(setting), prefix, level + 1),
    ]
    main = "main" if level == 1 else "div"
    inside = "\n".join(filter(None, sections))
    return f'<div class="gz">\n{_header(rows, setting, level)}\n<{main}>\n{inside}\n</{main}>\n</div>'


def _header(rows: Sequence[ReportRow], s: Setting, level: int) -> str:
    best = max((row for row in rows if row.recall >= 0.9), key=lambda row: row.ratio, default=None)
    lead = f"{size(s.nbytes)} of {escape(s.dtype)} vectors, compressed by {len(rows)} codecs."
    if best is not None:
        lead += (
            f" The smallest that still finds nine of ten neighbours, <strong>{escape(best.spec)}</strong>, "
            f"makes them <strong>{best.ratio:.1f} times smaller</strong>."
        )
    return (
        f'<header><p class="gz-eyebrow">gpuzip report</p>\n<h{level}>{s.n:,} &times; {s.d:,} vectors, '
        f'compressed</h{level}>\n<p class="gz-lead">{lead}</p></header>'
    )


def _section(title: str, content: str, prefix: str, level: int) -> str:
    id = f"{prefix}-{re.sub(r'[^a-z]+', '-', title.lower())}"
    return f'<section aria-labelledby="{id}">\n<h{level} id="{id}">{title}</h{level}>\n{content}\n</section>'


def _cards(choices: Sequence[Choice], level: int) -> str:
    return f'<ul class="gz-cards">\n{"".join(_card(choice, level) for choice in choices)}</ul>'


def _card(choice: Choice, level: int) -> str:
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in choice.facts.split(", "))
    missed = "" if choice.is_met else " gz-missed"
    rule = f"The {choice.rule}." if choice.is_met else f"None is the {choice.rule}. This is the nearest."
    return (
        f'<li class="gz-card{missed}"><h{level}>{escape(choice.need)}</h{level}>'
        f'<p class="gz-pick"><code>{_breakable(choice.spec)}</code></p>'
        f'<ul class="gz-facts">{facts}</ul><p class="gz-rule">{escape(rule)}</p></li>\n'
    )


def _breakable(spec: str) -> str:
    """A spec that may go on in the next line after a comma."""
    return escape(spec).replace(",", ",<wbr>")


def _figures(pictures: Sequence[Picture], level: int, wide: str = "") -> str:
    return f'<div class="gz-figures{wide}">\n{"".join(_figure(p, level) for p in pictures)}</div>'


def _figure(picture: Picture, level: int) -> str:
    return (
        f"<figure><h{level}>{escape(picture.title)}</h{level}>{picture.svg}"
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>\n"
    )


def _table(rows: Sequence[ReportRow], bound: Sequence[BoundRow], s: Setting, prefix: str) -> str:
    id = f"{prefix}-caption"
    body = "".join(_line(row) for row in lines(rows, bound))
    return (
        f'<div class="gz-scroll" role="region" aria-labelledby="{id}" tabindex="0">\n<table>\n'
        f'<caption id="{id}">Codecs by rising bytes per row</caption>\n<thead>\n{_heads(s.k)}</thead>\n'
        f'<tbody>\n{body}</tbody>\n</table>\n</div>\n<p class="gz-note">{_READ}</p>'
    )


def _heads(k: int) -> str:
    groups = "".join(f'<th scope="colgroup" colspan="{n}">{name}</th>' for name, n in _GROUPS)
    names = ["bytes per row", "all bytes", "smaller", "cosine", "mse", f"recall@{k}", "rescored"]
    columns = "".join(f'<th scope="col">{name}</th>' for name in [*names, "encode", "decode", "search"])
    units = '<th scope="col" rowspan="2">codec</th>'
    return f"<tr>{units}{groups}</tr>\n<tr>{columns}</tr>\n"


def _line(row: ReportRow | BoundRow) -> str:
    name, *others = cells(row)
    values = "".join(f"<td>{_cell(value)}</td>" for value in others)
    if isinstance(row, BoundRow):
        return f'<tr class="gz-bound"><th scope="row">{name[0].upper()}{name[1:]}</th>{values}</tr>\n'
    best = ' <span class="gz-best">best</span>' if row.on_front else ""
    head = f'<code>{_breakable(row.spec)}</code>{best} <span class="gz-kind">{escape(row.about)}</span>'
    return f'<tr><th scope="row">{head}</th>{values}</tr>\n'


def _cell(value: str) -> str:
    return _EMPTY if value == NONE else value


def _how(s: Setting) -> str:
    return '<ul class="gz-how">\n' + "".join(f"<li>{escape(text)}</li>\n" for text in how(s)) + "</ul>"
