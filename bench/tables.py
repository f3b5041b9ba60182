"""Write the tables of README.md and docs/ from bench/results/*.csv.

    python -m bench.tables [--check]

Replaces what stands between <!-- table:NAME --> and <!-- /table -->. With --check nothing is written, and the
exit status is 1 when one is out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
from itertools import groupby

import bench.table_recall  # noqa: F401  (names its tables)
from bench.cells import Lines, aligned, fill
from bench.checkout import ROOT, Row, read
from bench.table import TABLES, by
from bench.table_forms import race

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_BLOCK = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def made_of(name: str, rows: list[Row]) -> list[Lines]:
    """The parts of a table of these rows."""
    return list(TABLES[name].parts([row for row in rows if TABLES[name].where(row)]))


def made(name: str) -> Lines:
    """A table as it stands on its page: its parts, and below what it was measured on, for each processor."""
    rows = [row for row in read(TABLES[name].results) if TABLES[name].where(row)]
    if not rows:
        return ["Not measured yet."]
    return [*(line for part in made_of(name, rows) for line in (*part, "")), *map(_below, by("cpu", rows))]


def _below(rows: list[Row]) -> str:
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    newest = max(rows, key=lambda row: row["date"])
    newest |= {"commit": commits, "cpu": re.sub(r"\((R|TM)\)", "", newest["cpu"])}
    machine = "Measured {date} on {cpu}, {threads} threads, torch {torch}, faiss {faiss}, Python {python}, "
    return fill(machine + "commit {commit}.", newest)


def screen(kind: str, rows: list[Row]) -> str:
    """The same tables of rows that are new, in columns."""
    names = [name for name, table in TABLES.items() if table.results == kind]
    text = [f"{columns(part)}\n" for name in names for part in made_of(name, rows)]
    return "\n".join([*text, *filter(None, (race(row)["noise"] for row in rows if "least_ratio" in row))])


def columns(part: Lines) -> str:
    """A Markdown table in columns; other lines as they are."""
    found = []
    for is_table, some in groupby(part, lambda line: line.startswith("| ")):
        if is_table:
            heads, _, *body = (line[2:-2].split(" | ") for line in some)
            found.append(aligned(heads, body, left={heads[0]}))
        else:
            found += some
    return "\n".join(found)


def render(text: str) -> str:
    """A page's text with its tables made anew. Raises SystemExit for a block unknown or there twice."""
    found = [name for _, name, _ in _BLOCK.findall(text)]
    if sorted(found) != sorted(set(found) & set(TABLES)):
        sys.exit(f"A page has blocks for the tables {found}; {sorted(TABLES)} are known, once each at most.")
    return _BLOCK.sub(lambda block: "\n".join([block[1], *made(block[2]), "", block[3]]), text)


def renew(check: bool = False) -> list[str]:
    """Write the pages whose tables are out of date, or with check nothing; their names."""
    stale = []
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = render(old)
        if new != old:
            stale.append(page.relative_to(ROOT).as_posix())
            if not check:
                page.write_text(new, encoding="utf-8")
    return stale


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if a page is out of date")
    check = parser.parse_args().check
    stale = renew(check)
    if check and stale:
        print(f"{', '.join(stale)}: out of date, run python -m bench.tables")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
