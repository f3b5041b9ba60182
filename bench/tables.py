"""Write the tables of README.md and docs/ from bench/results/*.csv.

    python -m bench.tables [--check]

Replaces what stands between <!-- table:NAME --> and <!-- /table -->. With --check nothing is written, and the
exit status is 1 when one is out of date. A table is two lines of text as they will stand there: the heads,
and the cells of a row with the columns of the CSV file in braces.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from bench.cells import Lines, fill, lines
from bench.checkout import ROOT, Row, read
from bench.recall.targets import best

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_BLOCK = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)

#: The tables by name: what a block of a page has.
TABLES: dict[str, Callable[[], Lines]] = {}


def shown(make: Callable[[], Lines]) -> Callable[[], Lines]:
    """The function makes the table of its name."""
    return TABLES.setdefault(make.__name__, make)


def table(heads: str, cells: str, rows: Iterable[Mapping[str, Any]]) -> Lines:
    """A line for each row. Braces in the heads are of the first one."""
    some = list(rows)
    return lines(fill(heads, some[0]), (fill(cells, row) for row in some))


def under(rows: list[Row], *parts: Lines) -> Lines:
    """The parts, and below what the rows were measured on."""
    row = rows[0] | {"cpu": re.sub(r"\((R|TM)\)", "", rows[0]["cpu"])}
    machine = "Measured {date} on {cpu}, {threads} threads, torch {torch}, faiss {faiss}, Python {python}, "
    return [*(line for part in parts for line in (*part, "")), fill(machine + "commit {commit}.", row)]


def by(name: str, rows: list[Any]) -> Iterator[list[Any]]:
    """The rows of each value of a column, in the order of first appearance."""
    for value in dict.fromkeys(row[name] for row in rows):
        yield [row for row in rows if row[name] == value]


def faster(ratio: float, peer: str) -> str:
    """Who is the faster one, of a ratio of the peer's time to ours."""
    return "neither" if 0.95 <= ratio < 1.05 else "gpuzip" if ratio > 1 else re.split("[, ]", peer)[0]


def setting(row: Mapping[str, Any]) -> str:
    """`m=48, nbits=8` of product quantization, `384 bits` of binary codes."""
    return fill("m={m}, nbits={nbits}" if row["m"] else "{nbits} bit" + "s" * (row["nbits"] != "1"), row)


# Codes beside FAISS, embzip and others


@shown
def quality() -> Lines:
    rows = read("quality")
    codes = [row for row in rows if row["peer"] == "FAISS"]
    files = []
    for some in by("m", [row for row in rows if row["peer"] != "FAISS"]):
        found = {(row["measure"], row["peer"]): row for row in some}
        if cosine := found.get(("cosine", "embzip")):
            size, stated = found["file bytes", "embzip"], found["file bytes", "embzip's README"]["theirs"]
            numbers = {"bytes": size["gpuzip"], "their_bytes": size["theirs"], "stated": stated}
            files.append(cosine | numbers | {"fewer": -float(size["change"])})
    return under(
        rows,
        table(
            "1,000 x 384, nbits=4 | gpuzip | embzip | fewer bytes | embzip's README | "
            "cosine, gpuzip | cosine, embzip",
            "m={m} | {bytes:,} | {their_bytes:,} | {fewer:.1f} % | {stated:,} | {gpuzip:.4f} | {theirs:.4f}",
            files,
        ),
        table(
            "{rows:,} x 384, mean of {seeds} seeds | gpuzip | FAISS",
            "{measure}, m={m}, nbits={nbits} | {gpuzip:n} | {theirs:n}",
            codes,
        ),
    )


def race(row: Row) -> dict[str, str]:
    """A row of one case and one peer; a peer that was not timed has a note of why."""
    queries = " query" if row["queries"] == "1" else " queries"
    about = {
        "setting": setting(row),
        "asked": f", {row['queries']}{queries}" * bool(row["queries"]),
        "found": fill(", recall {recall:.3f}", row) * bool(row["recall"]),
        "times": " | ".join([row["note"], "", "", ""]),
    }
    if row["ratio"]:
        who = faster(float(row["ratio"]), row["peer"])
        about["times"] = fill(f"{{peer_seconds:s}} | {{ratio:x}} | {who} | {{plain_ratio:x}}", row)
    return row | about


RACE_HEADS = (
    " | beside | gpuzip | theirs | ratio | faster | ratio without numba | memory, gpuzip | memory, theirs"
)
RACE_CELLS = (
    "{group}, {rows:,} rows, {setting}{asked} | {peer}{found} | {seconds:s} | {times} | "
    "{peak_bytes:MB} | {peer_peak_bytes:MB}"
)


def _speed(name: str) -> Lines:
    rows = read(name)
    return under(rows, table(RACE_HEADS, RACE_CELLS, map(race, rows)))


TABLES |= {"speed": partial(_speed, "pq"), "codes": partial(_speed, "codes")}


@shown
def memory() -> Lines:
    rows = read("memory")
    heads = "{rows:,} x {d} float32, m={m}, nbits={nbits} | peak memory | time"
    tasks = [row | {"asked": fill(", {queries} queries", row) * bool(row["queries"])} for row in rows]
    return under(rows, table(heads, "{task}{asked} | {peak_bytes:MB} | {seconds:s}", tasks))


@shown
def rag() -> Lines:
    rows = read("rag")
    heads = (
        "{rows:,} x {d}, {real:,} of them real | in memory | smaller | build | peak | queries/s, 1 | "
        "queries/s, 256 | recall@10 | similarity kept"
    )
    cells = (
        "{name} | {nbytes:MB} | {smaller:.1f}x | {build_seconds:s} | {peak_bytes:MB} | {qps_1:,.0f} | "
        "{qps_256:,.0f} | {recall:.3f} | {similarity:%}"
    )
    stores = list(map(_store, rows))
    return under(rows, *(table(heads, cells, some) for some in by("rows", stores)))


def _store(row: Row) -> dict[str, Any]:
    """A store with how much smaller it is than its float rows; one that is not built takes no time."""
    took = row["build_seconds"] if float(row["build_seconds"]) else ""
    floats = 4 * int(row["rows"]) * int(row["d"])
    return row | {"smaller": floats / float(row["nbytes"]), "build_seconds": took}


@shown
def sizes() -> Lines:
    rows = read("sizes")
    heads = "{rows:,} x {d} | values or codes | codec | overhead | all | float32 / all | float64 / all"
    cells = "{name} | {values:,} | {codec:,} | {overhead:,} | {nbytes:,} | {float32_ratio:.2f} | "
    return under(rows, table(heads, cells + "{float64_ratio:.2f}", rows))


# Lloyd-Max codes, alone and in a model


@shown
def bitrates() -> Lines:
    rows = read("bitrates")
    heads = (
        "bits |  | method | bits per value, with levels and scales | file | mse | row cosine | fit | "
        "ours of as few bytes, mse"
    )
    cells = (
        "{bits} | {side} | {method} | {bits_a_value:.3f} | {file_bytes:MB} | {mse:.3g} | {row_cosine:.4f} | "
        "{fit_seconds:s} | {rival_mse:.3g}"
    )
    parts = []
    for some in by("table", list(filter(_is_shown, rows))):
        parts += [[fill("{rows:,} x {d}, {table}:", some[0])], table(heads, cells, some)]
    return under(rows, *parts, _fits())


def _is_shown(row: Row) -> bool:
    """Only the best kind of equal steps; of ours not what each dimension's own levels gain."""
    if row["side"] == "uniform":
        return row["method"] == "equal steps, mse, per dim"
    return "per='dim'" not in row["method"]


def _fits() -> Lines:
    return table(
        "levels of | all values | memory | {values:,} values | memory | scikit-learn | memory | ratio | "
        "mse, gpuzip | mse, scikit-learn",
        "{table}, {rows:,} x {d}, {bits} bits | {seconds:s} | {peak_bytes:MB} | {some_seconds:s} | "
        "{some_peak_bytes:MB} | {peer_seconds:s} | {peer_peak_bytes:MB} | {ratio:x} | {some_mse:.3g} | "
        "{peer_mse:.3g}",
        read("fits"),
    )


@shown
def lookup() -> Lines:
    """A line of one size and width: our time, each peer's over it, and the time without numba."""
    rows = read("lookup")
    peers = {some[-1]["peer"]: fill("{peer}, {peer_nbytes:MB}", some[-1]) for some in by("peer", rows)}
    cases = (some for group in by("group", rows) for some in by("nbits", group))
    body = []
    for some in sorted(cases, key=lambda some: rows.index(some[0])):
        first, calls = some[0], int(some[0]["calls"])
        times = {name: float(first[name]) / calls for name in ("seconds", "plain_seconds")}
        ratio_of = {row["peer"]: fill("{ratio:x}", row) for row in some}
        body.append(first | times | {"ratios": " | ".join(ratio_of[peer] for peer in peers)})
    heads = f"ids | bits | memory | gpuzip | {' | '.join(peers.values())} | without numba"
    cells = "{group} | {nbits} | {nbytes:MB} | {seconds:s} | {ratios} | {plain_seconds:s}"
    return under(rows, table(heads, cells, body))


@shown
def models() -> Lines:
    rows = read("models")
    title = fill("{texts:,} texts and {queries} queries, embedded by each model:", rows[0])
    heads = (
        "bits | tables | before | after | model | table's cosine | texts' cosine | "
        "queries' cosine | recall@10"
    )
    cells = (
        "{bits} | {tables} | {bytes_before:MB} | {bytes_after:MB} | {model_bytes:MB} | {table_cosine:.4f} | "
        "{text_cosine:.4f} | {query_cosine:.4f} | {recall:.3f}"
    )
    return under(rows, [title], table(heads, cells, rows))


@shown
def outcomes() -> Lines:
    rows = read("outcomes")
    heads = (
        "{rows:,} rows | asked for | chosen | bytes | likely | on unseen rows | best of the grid | "
        "more bytes | took"
    )
    cells = (
        "{matrix}, {d} columns | {target} {floor} | `{codec}` | {nbytes:MB} | {likely:.4f} | {unseen:.4f} | "
        "`{best}` | {extra:+%} | {seconds:s}"
    )
    return under(rows, table(heads, cells, rows))


# Recall per byte

_QUALITY = "{recall:.4f} | {rescored_recall:.4f} | {row_cosine:.4f}"
_COST = "{train_seconds:s} | {encode_rows_per_second:,.0f} | {peak_bytes:MB}"


def _per_byte(rows: list[Row], some: list[Row], *parts: Lines) -> Lines:
    """The parts between what the rows are of and what some of them, which are shown, were measured on."""
    title = fill("{rows:,} x {d}, {trained:,} of them trained on, {queries:,} queries:", rows[0])
    commits = ", ".join(dict.fromkeys(row["commit"] for row in some))
    newest = max(some, key=lambda row: row["date"]) | {"commit": commits}
    return under([newest], [title], *parts)


def _best_first(row: Mapping[str, Any]) -> float:
    return -float(row["recall"] or 0)


@shown
def best_per_byte() -> Lines:
    """The best codec of each side at every size, and the float rows last."""
    rows = read("recall")
    d, body = int(rows[0]["d"]), []
    for some in by("size", rows):
        size = some[0]["size"]
        pair = [best(rows, side, size) for side in ("gpuzip", "FAISS")]
        cells = [fill("`{method}` | {recall:.3f}", row) if row else " | " for row in pair]
        body.append(" | ".join([size, f"{4 * d / int(size):.0f}x", *cells]))
    body.append(f"{4 * d:,} | 1x | float32 | 1.000 | float32 | 1.000")
    heads = "bytes per vector | smaller | gpuzip | recall@10 | FAISS | recall@10"
    return _per_byte(rows, rows, lines(heads, body))


@shown
def recall() -> Lines:
    """A line for each form of a method: its recall@10 at every size."""
    rows = read("recall")
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    found = {(row["form"], row["side"], row["size"]): row for row in rows}
    forms = dict.fromkeys((row["form"], row["side"]) for row in sorted(rows, key=_best_first))
    body = []
    for form, side in sorted(forms, key=lambda name: name[1] == "FAISS"):
        cells = [_recall(found.get((form, side, size))) for size in sizes]
        body.append(" | ".join([f"`{form.replace(':g', '')}`", side, *cells]))
    ahead = [_ahead(rows, size) for size in sizes]
    body.append(" | ".join(["best of gpuzip over best of FAISS, in no more bytes", "", *ahead]))
    return _per_byte(rows, rows, lines(" | ".join(["recall@10", "", *(f"{n} bytes" for n in sizes)]), body))


def _recall(row: Row | None) -> str:
    """With the true bytes of a vector, where they are others; why not, where there is none."""
    if row is None:
        return ""
    if not row["recall"]:
        return "too slow"
    more = float(row["row_bytes"]) - float(row["size"])
    return fill("{recall:.3f}", row) + f" ({more:+g} B)" * bool(more)


def _ahead(rows: list[Row], size: str) -> str:
    ours, theirs = (best(rows, side, size) for side in ("gpuzip", "FAISS"))
    return f"{float(ours['recall']) - float(theirs['recall']):+.3f}" if ours and theirs else ""


@shown
def recall_rows() -> Lines:
    """A line for each method, by size."""
    rows = read("recall")
    heads = (
        "{size} bytes |  | bytes per vector | beside | recall@10 | rescored x4 | row cosine | bound | "
        "training | encoded per second | peak memory"
    )
    cells = f"`{{method}}` | {{side}} | {{bytes}} | {{state_bytes:MB}} | {_QUALITY} | {{bound:.4f}} | {_COST}"
    some = [row | {"bytes": fill("{row_bytes:g}", row) if row["recall"] else row["note"]} for row in rows]
    parts = (table(heads, cells, sorted(part, key=_best_first)) for part in by("size", some))
    return _per_byte(rows, rows, *parts)


def _of_codec(name: str) -> Lines:
    """A line for each row of one of our codecs, by size."""
    rows = read("recall")
    heads = (
        "settings | bytes per vector | codec | recall@10 | rescored x4 | row cosine | training | "
        "encoded per second | peak memory"
    )
    cells = f"`{{method}}` | {{row_bytes:g}} | {{state_bytes:MB}} | {_QUALITY} | {_COST}"
    some = [row for row in rows if row["method"].startswith(f"{name}(") and row["recall"]]
    some.sort(key=lambda row: (int(row["size"]), _best_first(row)))
    return _per_byte(rows, some, table(heads, cells, some))


#: Our codecs in results/recall.csv, with a table each.
CODECS = ("Product", "Residual", "RaBit", "Scalar", "Binary", "LloydMax", "MixedLloydMax")
TABLES |= {f"{name}Quantizer": partial(_of_codec, f"{name}Quantizer") for name in CODECS}


@shown
def progressive() -> Lines:
    rows = read("recall_progressive")
    heads = (
        "{rows:,} rows, {queries} queries at once | scanned, and read again | bytes read | "
        "recall@10 | queries/s"
    )
    cells = "`RaBitQuantizer({bits})`, {row_bytes} bytes | {search} | {share_read:%} | {recall:.4f} | "
    return under(rows, table(heads, cells + "{queries_per_second:,.0f}", rows))


# Pages


def render(text: str) -> str:
    """A page's text with its tables made anew. Raises SystemExit for a block unknown or there twice."""
    found = [name for _, name, _ in _BLOCK.findall(text)]
    if sorted(found) != sorted(set(found) & set(TABLES)):
        sys.exit(f"A page has blocks for the tables {found}; {sorted(TABLES)} are known, once each at most.")
    return _BLOCK.sub(lambda block: "\n".join([block[1], *TABLES[block[2]](), "", block[3]]), text)


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
