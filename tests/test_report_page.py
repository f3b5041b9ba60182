"""The page of a report in Chromium: readable in light, dark, print and on a phone, and by a screen reader."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import gpuzip
from gpuzip.reports.report import Report

pytest.importorskip("matplotlib")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--enable-logging=stderr",
        "--hide-scrollbars",
    ),
)
SCHEMES = {"dark": 0, "light": 1}  # as Blink counts them
PHONE, DESK = 390, 1200

pytestmark = pytest.mark.full
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")


def made(seed: int) -> Report:
    x = torch.randn(400, 32, generator=torch.Generator().manual_seed(0))
    return gpuzip.report(x, x[:40] + 0.1, seed=seed)


@pytest.fixture(scope="module")
def report() -> Report:
    return made(0)


@pytest.fixture(scope="module")
def page(report) -> str:
    text: str = report.to_html()
    return text


def run(folder: Path, text: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """What Chromium prints of a page, in a profile of its own."""
    assert CHROMIUM is not None
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    return subprocess.run(
        [CHROMIUM, *FLAGS, profile, *flags, file.as_uri()],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )


#: Reads what a page looks like from computed styles. It stands outside of the page, which has no scripts.
PROBE = r"""
const luminance = rgb => rgb.map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const parsed = color => (color.match(/[\d.]+/g) || []).map(Number);
const isClear = color => color === 'none' || color === 'transparent' || parsed(color)[3] === 0;
const ratio = (a, b) => {
  const [x, y] = [luminance(parsed(a).slice(0, 3)), luminance(parsed(b).slice(0, 3))];
  return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
};
function probed(view) {
  const page = view.document, style = e => view.getComputedStyle(e);
  const behind = e => { while (e && isClear(style(e).backgroundColor)) e = e.parentElement;
    return e ? style(e).backgroundColor : 'rgb(255, 255, 255)'; };
  const all = [...page.body.querySelectorAll('*')];
  const ownText = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  const texts = all.filter(e => ownText(e) && !['STYLE', 'style', 'title', 'desc'].includes(e.tagName));
  const inSvg = e => e.namespaceURI.endsWith('svg');
  const marks = all.filter(e => inSvg(e) && ['path', 'use'].includes(e.tagName) && !e.closest('defs'));
  const named = (e, attribute) => (e.getAttribute(attribute) || '').split(/\s+/)
    .map(id => id && page.getElementById(id)).map(e => e ? e.textContent.trim() : '').join(' ').trim();
  return {
    width: page.documentElement.clientWidth,
    scrolls: page.documentElement.scrollWidth,
    paper: behind(page.body),
    texts: texts.map(e => [e.textContent.trim().slice(0, 40),
      ratio(inSvg(e) ? style(e).fill : style(e).color, behind(e))]),
    marks: marks.flatMap(e => [style(e).fill, style(e).stroke].filter(c => !isClear(c))
      .filter(() => Number(style(e).fillOpacity) === 1 && Number(style(e).opacity) === 1)
      .map(c => [c, ratio(c, behind(e))])),
    pictures: [...page.querySelectorAll('svg, img')].map(e => [e.getAttribute('role'),
      named(e, 'aria-labelledby'), named(e, 'aria-describedby')]),
    wide: [...page.querySelectorAll('svg')].map(e => e.getBoundingClientRect().right),
    headings: [...page.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(e => Number(e.tagName[1])),
    ids: [...page.querySelectorAll('[id]')].map(e => e.id),
    links: [...page.querySelectorAll('svg [*|href], [href]')].map(e =>
      e.getAttribute('href') || e.getAttribute('xlink:href')),
    tables: [...page.querySelectorAll('table')].map(t => ({
      caption: t.caption ? t.caption.textContent : '',
      heads: [...t.tHead.querySelectorAll('th')].map(e => e.getAttribute('scope')),
      cells: [...t.tHead.querySelectorAll('td')].length,
      columns: [...t.tBodies[0].rows].map(r => r.cells.length),
      rows: [...t.tBodies[0].rows].map(r => r.cells[0].tagName + r.cells[0].getAttribute('scope')),
      focusable: t.parentElement.tabIndex,
    })),
    sections: [...page.querySelectorAll('section')].map(e => named(e, 'aria-labelledby')),
    loaded: view.performance.getEntriesByType('resource').map(e => e.name),
  };
}
const frame = document.getElementById('frame');
frame.onload = () => document.getElementById('out').textContent = JSON.stringify(probed(frame.contentWindow));
"""


def probed(folder: Path, page: str, scheme: str, width: int) -> dict[str, Any]:
    """What a page looks like in a frame of a width, whose scheme is that of its surroundings."""
    outer = (
        '<!DOCTYPE html><meta charset="utf-8"><style>:root { color-scheme: light dark }</style>'
        f'<iframe id="frame" width="{width}" height="800" style="border: 0"></iframe><pre id="out"></pre>'
        f'<script>{PROBE}frame.srcdoc = "{{}}";</script>'
    ).replace('frame.srcdoc = "{}";', f"frame.srcdoc = {_quoted(page)};")
    scheme_flag = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    done = run(folder, outer, "--dump-dom", "--virtual-time-budget=10000", scheme_flag)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None
    assert found[1], done.stderr
    result: dict[str, Any] = json.loads(unescape(found[1]))
    return result


def _quoted(page: str) -> str:
    """A string of JavaScript inside of a page."""
    return json.dumps(page).replace("</", r"<\/")


@pytest.fixture(scope="module", params=[("light", DESK), ("dark", DESK), ("light", PHONE), ("dark", PHONE)])
def look(request, page, tmp_path_factory) -> tuple[str, int, dict[str, Any]]:
    scheme, width = request.param
    return scheme, width, probed(tmp_path_factory.mktemp("look"), page, scheme, width)


@in_chromium
def test_a_page_is_as_wide_as_its_screen(look):
    _, width, seen = look
    assert seen["width"] == width
    assert seen["scrolls"] <= width
    assert max(seen["wide"]) <= width


@in_chromium
def test_text_stands_out_in_light_and_dark(look):
    scheme, _, seen = look
    assert (sum(map(int, re.findall(r"\d+", seen["paper"])[:3])) > 380) == (scheme == "light")
    assert len(seen["texts"]) > 200
    assert [pair for pair in seen["texts"] if not pair[1] >= 4.5] == []


@in_chromium
def test_lines_and_points_stand_out_in_light_and_dark(look):
    _, _, seen = look
    assert len(seen["marks"]) > 100
    assert [pair for pair in seen["marks"] if not pair[1] >= 3] == []


@in_chromium
def test_pictures_tables_and_sections_are_named(look):
    _, _, seen = look
    assert len(seen["pictures"]) >= 7
    assert all(role == "img" and title and alt for role, title, alt in seen["pictures"])
    assert len({title for _, title, _ in seen["pictures"]}) == len(seen["pictures"])
    (table,) = seen["tables"]
    assert table["caption"] and table["cells"] == 0 and table["focusable"] == 0
    assert set(table["heads"]) == {"col", "colgroup"}
    assert table["heads"].count("col") == 11
    assert set(table["columns"]) == {11} and set(table["rows"]) == {"THrow"}
    assert len(seen["sections"]) == 5 and all(seen["sections"])


@in_chromium
def test_headings_skip_no_level_and_ids_are_unique(look):
    _, _, seen = look
    levels = seen["headings"]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert len(set(seen["ids"])) == len(seen["ids"])


@in_chromium
def test_nothing_else_is_loaded(look, page):
    _, _, seen = look
    assert seen["loaded"] == []
    assert all(link.removeprefix("#") in seen["ids"] for link in seen["links"])
    assert "<script" not in page and "@import" not in page
    assert set(re.findall(r"https?://[^\"' >)]*", page)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


@in_chromium
def test_a_page_prints(page, tmp_path):
    run(tmp_path, page, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    pdf = (tmp_path / "page.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 8
    assert re.search(rb"/MediaBox \[0 0 59[45]", pdf)  # A4


@in_chromium
def test_a_notebook_shows_the_same_with_headings_of_its_own(report, tmp_path):
    """Two reports in one notebook share no ids, and bring their own paper."""
    other = replace(report, setting=replace(report.setting, seed=1))
    cells = f"<h1>Notebook</h1><h2>Cell</h2>{report._repr_html_()}{other._repr_html_()}"
    notebook = (
        f'<!DOCTYPE html><html lang="en"><title>n</title><body style="background: #777">{cells}</body></html>'
    )
    seen = probed(tmp_path, notebook, "dark", DESK)
    assert len(set(seen["ids"])) == len(seen["ids"])
    assert seen["headings"][:3] == [1, 2, 3] and set(seen["headings"][3:]) == {3, 4, 5}
    inside = [pair for pair in seen["texts"] if pair[0] not in ("Notebook", "Cell")]
    assert [pair for pair in inside if not pair[1] >= 4.5] == []


def test_a_page_is_small_and_the_same_for_the_same_numbers(report, page):
    assert len(page.encode()) < 600_000
    assert report.to_html() == page
    again = made(0)
    rows = tuple(
        replace(
            row,
            encode_speed=timed.encode_speed,
            decode_speed=timed.decode_speed,
            search_speed=timed.search_speed,
        )
        for row, timed in zip(again.rows, report.rows, strict=True)
    )
    assert rows == report.rows
    assert replace(again, rows=rows, choices=report.choices).to_html() == page


def test_what_is_measured_stands_in_the_page(report, page):
    for row in report.rows:
        assert f"<code>{escape(row.spec).replace(',', ',<wbr>')}</code>" in page
        for value in (f"{row.nbytes:,}", f"{row.row_cosine:.4f}", f"{row.recall:.3f}"):
            assert f"<td>{value}</td>" in page
    for choice in report.choices:
        assert f"<h3>{choice.need}</h3>" in page
