"""The report of the sample: `python -m examples.report [folder]`, or with --docs for docs/guides/report.md.

With --docs the table of the page is written anew, and its picture too, where Chromium is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import gpuzip
from examples.sample import load_sample
from gpuzip.reports import Report

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = Path("build/report")
PAGE = ROOT / "docs" / "guides" / "report.md"
PICTURE = ROOT / "docs" / "images" / "report.png"

_TABLE = re.compile(r"(<!-- report -->\n).*?(<!-- /report -->)", re.DOTALL)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_WIDTH, _HEIGHT = 1200, 2400  # pixels: cards, fronts and the table


def main(folder: Path = OUTPUT) -> None:
    report = of_sample()
    folder.mkdir(parents=True, exist_ok=True)
    print(report)
    print(report.save_html(folder / "report.html"))


def renew_docs() -> None:
    report = of_sample()
    PAGE.write_text(_TABLE.sub(rf"\g<1>{in_docs(report)}\g<2>", PAGE.read_text()))
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        sys.exit("docs/images/report.png is not made anew: there is no chromium on PATH.")
    with tempfile.TemporaryDirectory() as folder:
        page = report.save_html(Path(folder) / "report.html")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        flags += [f"--user-data-dir={folder}/profile", f"--window-size={_WIDTH},{_HEIGHT}"]
        subprocess.run([browser, *flags, f"--screenshot={PICTURE}", page.as_uri()], check=True)


def of_sample() -> Report:
    sample = load_sample()
    return gpuzip.report(sample.embeddings, sample.queries)


def in_docs(report: Report) -> str:
    """The Markdown of a report as it stands in the page."""
    return report.to_markdown().replace("\\", r"\\")


if __name__ == "__main__":
    if sys.argv[1:] == ["--docs"]:
        renew_docs()
    else:
        main(*map(Path, sys.argv[1:2]))
