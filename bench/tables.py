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
from itertools import groupby
from typing import Any, NamedTuple

from bench.cells import Lines, aligned, fill, lines
from bench.checkout import ROOT, Row, read
from bench.recall.targets import best

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

_BLOCK = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


class Table(NamedTuple):
    """Paragraphs and tables of rows of results/<results>.csv, of those for which `where` holds."""

    results: str
    parts: Callable[[list[Row]], Iterable[Lines]]
    where: Callable[[Row], bool] = lambda row: True


#: The tables by name: what a block of a page has.
TABLES: dict[str, Table] = {}


def shown(results: str) -> Callable[[Any], Any]:
    """The function makes the parts of the table of its name."""

    def keep(parts: Any) -> Any:
        TABLES[parts.__name__] = Table(results, parts)
        return parts

    return keep


def table(heads: str, cells: str, rows: Iterable[Mapping[str, Any]]) -> Lines:
    """A line for each row. Braces in the heads are of the first one."""
    some = list(rows)
    return lines(fill(heads, some[0]), (fill(cells, row) for row in some)) if some else []


def by(name: str, rows: Iterable[Any]) -> Iterator[list[Any]]:
    """The rows of each value of a column, in the order of first appearance."""
    groups: dict[Any, list[Any]] = {}
    for row in rows:
        groups.setdefault(row[name], []).append(row)
    yield from groups.values()


def form(
    name: str,
    heads: str,
    cells: str,
    derive: Callable[[Row], Mapping[str, Any]] = dict,
    *,
    results: str = "",
    where: Callable[[Row], bool] = lambda row: True,
    split: str = "",
    title: str = "",
) -> None:
    """Name a table with a line for each row.

    derive: the row with more columns. results: the file, where it has another name. split: a column, with a
    table for each of its values. title: a paragraph above each table.
    """

    def parts(rows: list[Row]) -> Iterator[Lines]:
        derived = list(map(derive, rows))
        for some in by(split, derived) if split else [derived]:
            if title:
                yield [fill(title, some[0])]
            yield table(heads, cells, some)

    TABLES[name] = Table(results or name, parts, where)


def faster(ratio: float, peer: str) -> str:
    """Who is the faster one, of a ratio of the peer's time to ours."""
    return "neither" if 0.95 <= ratio < 1.05 else "gpuzip" if ratio > 1 else re.split("[, ]", peer)[0]


def race(row: Row) -> dict[str, str]:
    """A row of one case and one peer; a peer that was not timed has a note of why."""
    codes = "m={m}, nbits={nbits}" if row["m"] else "{nbits} bit" + "s" * (row["nbits"] != "1")
    asked = ", {queries} " + ("query" if row["queries"] == "1" else "queries")
    about = {"setting": fill(codes, row), "asked": fill(asked, row) * bool(row["queries"]), "noise": ""}
    about["found"] = fill(", recall {recall:.3f}", row) * bool(row["recall"])
    about["times"] = " | ".join([row["note"], "", "", ""])
    if row["ratio"]:
        about["who"] = faster(float(row["ratio"]), row["peer"])
        about["times"] = fill("{peer_seconds:s} | {ratio:x} | {who} | {plain_ratio:x}", row | about)
        low, high = sorted((float(row["ratio"]), float(row["least_ratio"])))
        if high > 1.25 * low:  # medians and minima tell different stories when something else was running
            case = "{group}, {rows:,} rows, {setting}{asked}, {peer}"
            about["noise"] = fill(f"noisy: {case}: {{least_ratio:.2f}}x by the minima", row | about)
    return row | about


def _store(row: Row) -> dict[str, Any]:
    """A store with how much smaller it is than its float rows; one that is not built takes no time."""
    took = row["build_seconds"] if float(row["build_seconds"]) else ""
    floats = 4 * int(row["rows"]) * int(row["d"])
    return row | {"smaller": floats / float(row["nbytes"]), "build_seconds": took}


def _named(row: Row) -> str:
    return f"`{row['method']}({row['dial']})`" if row["dial"] else row["method"]


def _is_shown(row: Row) -> bool:
    """Only the best kind of equal steps; of ours not what each dimension's own levels gain."""
    if row["side"] == "uniform":
        return row["method"] == "equal steps, mse, per dim"
    return "per='dim'" not in row["method"]


for _name, _results in (("speed", "pq"), ("codes", "codes")):
    form(
        _name,
        " | beside | gpuzip | theirs | ratio | faster | ratio without numba | memory, gpuzip | "
        "memory, theirs",
        "{group}, {rows:,} rows, {setting}{asked} | {peer}{found} | {seconds:s} | {times} | "
        "{peak_bytes:MB} | {peer_peak_bytes:MB}",
        race,
        results=_results,
    )
form(
    "memory",
    "{rows:,} x {d} float32, m={m}, nbits={nbits} | peak memory | time",
    "{task}{asked} | {peak_bytes:MB} | {seconds:s}",
    lambda row: row | {"asked": fill(", {queries} queries", row) * bool(row["queries"])},
)
form(
    "large",
    "{rows:,} x {d} float32 to {codec} | resident, at most | allowed | time | rows/s | reading | training | "
    "encoding | writing",
    "{task} | {peak_bytes:MB} | {limit_bytes:MB} | {seconds:s} | {rows_per_second:,.0f} | {reading:%} | "
    "{training:%} | {encoding:%} | {writing:%}",
    where=lambda row: row["task"] != "row",
)
form(
    "large_rows",
    "{rows:,} x {d} | row | read to open and for one row | read for another | time to open and for one row",
    "{store} | {codec} | {row_bytes:,} | {next_bytes:,} | {seconds:s}",
    results="large",
    where=lambda row: row["task"] == "row",
)
form(
    "rag",
    "{rows:,} x {d}, {real:,} of them real | in memory | smaller | build | peak | queries/s, 1 | "
    "queries/s, 256 | recall@10 | similarity kept",
    "{name} | {nbytes:MB} | {smaller:.1f}x | {build_seconds:s} | {peak_bytes:MB} | {qps_1:,.0f} | "
    "{qps_256:,.0f} | {recall:.3f} | {similarity:%}",
    _store,
    split="rows",
)
form(
    "sizes",
    "{rows:,} x {d} | values or codes | codec | overhead | all | float32 / all | float64 / all",
    "{name} | {values:,} | {codec:,} | {overhead:,} | {nbytes:,} | {float32_ratio:.2f} | {float64_ratio:.2f}",
)
form(
    "bitrates",
    "bits |  | method | bits per value, with levels and scales | file | mse | row cosine | fit | "
    "ours of as few bytes, mse",
    "{bits} | {side} | {method} | {bits_a_value:.3f} | {file_bytes:MB} | {mse:.3g} | {row_cosine:.4f} | "
    "{fit_seconds:s} | {rival_mse:.3g}",
    where=_is_shown,
    split="table",
    title="{rows:,} x {d}, {table}:",
)
form(
    "fits",
    "levels of | all values | memory | {values:,} values | memory | scikit-learn | memory | ratio | "
    "mse, gpuzip | mse, scikit-learn",
    "{table}, {rows:,} x {d}, {bits} bits | {seconds:s} | {peak_bytes:MB} | {some_seconds:s} | "
    "{some_peak_bytes:MB} | {peer_seconds:s} | {peer_peak_bytes:MB} | {ratio:x} | {some_mse:.3g} | "
    "{peer_mse:.3g}",
)
form(
    "models",
    "bits | tables | before | after | model | table's cosine | texts' cosine | queries' cosine | recall@10",
    "{bits} | {tables} | {bytes_before:MB} | {bytes_after:MB} | {model_bytes:MB} | {table_cosine:.4f} | "
    "{text_cosine:.4f} | {query_cosine:.4f} | {recall:.3f}",
    title="{texts:,} texts and {queries} queries, embedded by each model:",
)
form(
    "outcomes",
    "{rows:,} rows | asked for | chosen | bytes | likely | on unseen rows | best of the grid | "
    "more bytes | took",
    "{matrix}, {d} columns | {target} {floor} | `{codec}` | {nbytes:MB} | {likely:.4f} | "
    "{unseen:.4f} | `{best}` | {extra:+%} | {seconds:s}",
)
form(
    "rotations",
    "case | beside | gpuzip | theirs | ratio",
    "{kind}, {rows:,} x {d} | {peer} | {seconds:s} | {peer_seconds:s} | {ratio:x}",
)
form(
    "progressive",
    "{rows:,} rows, {queries} queries at once | scanned, and read again | bytes read | recall@10 | queries/s",
    "`RaBitQuantizer({bits})`, {row_bytes} bytes | {search} | {share_read:%} | {recall:.4f} | "
    "{queries_per_second:,.0f}",
    results="recall_progressive",
)
form(
    "archive_small",
    "{rows:,} x {d}, {data} | embzip's bytes | embzip's cosine | asked for | bytes of the file | cosine | "
    "fewer bytes | at least | target",
    "{method} | {peer_nbytes:,} | {peer_cosine} | `{dial}` | {nbytes:,} | {cosine:.4f} | {fewer:%} | "
    "{at_least} | {target}",
    lambda row: row | {"target": "met" if row["ok"] == "True" else "missed"},
    results="archive",
    where=lambda row: row["part"] == "small",
    split="data",
)
form(
    "archive_curve",
    "{data}, {d} columns | rows | cosine | bits per value | bound | above the bound",
    "{method} | {rows:,} | {cosine:.6f} | {bits:.3f} | {bound_bits:.3f} | {gap:.3f}",
    results="archive",
    where=lambda row: row["part"] == "curve",
    split="data",
)
form(
    "archive_exact",
    "{part}, {rows:,} x {d} {data} | bytes | smaller than {data} | largest error",
    "{method} | {nbytes:,} | {ratio:.3f}x | {error}",
    lambda row: row | {"error": row["max_error"] or "0", "case": row["part"] + row["data"]},
    results="archive",
    where=lambda row: row["part"] in ("near-lossless", "lossless"),
    split="case",
)
form(
    "archive_speed",
    "{data} | rows | threads | numba | encode, million values per second | decode | encode, CPU time | "
    "decode, CPU time | smaller | peak memory",
    "{name} | {rows:,} | {workers} | {numba} | {encode_rate:.1f} | {decode_rate:.1f} | "
    "{encode_cpu_rate:.1f} | {decode_cpu_rate:.1f} | {ratio:.2f}x | {peak_bytes:MB}",
    lambda row: row | {"name": _named(row), "numba": "yes" if row["loops"] == "True" else "no"},
    results="archive",
    where=lambda row: row["part"] == "speed",
)


form(
    "distributed",
    "{rows:,} x {d}, PQ{m}x{nbits} | ranks | time | faster than 1 rank | received by a rank | "
    "per query or row | exchanges | overhead of 1 rank, CPU time",
    "{what} | {ranks} | {seconds:s} | {speedup:.2f}x | {received:,} bytes | {each:.1f} bytes | {exchanges} | "
    "{overhead:%}",
    lambda row: (
        row
        | {
            "what": row["operation"] + fill(", {queries} at once, k={k}", row) * bool(row["queries"]),
            "each": str(int(row["received"]) / int(row["per"])),
        }
    ),
    where=lambda row: row["operation"] != "merge",
)
form(
    "distributed_ray",
    "{d} columns, PQ{m}x{nbits} | rows | workers | killed | time | rows per second | peak memory | the "
    "bytes of one process",
    "Ray Data | {rows:,} | {workers} | {killed} | {seconds:s} | {rate:,} | {peak_bytes:MB} | {same}",
    lambda row: row | {"same": "yes" if row["same"] == "True" else "NO"},
)


form(
    "scale",
    "{rows:,} x {d} | machines | codes | encode | simulated | dollars | {queries} queries | simulated | of "
    "it exchange | dollars per million queries | the scan pays up to",
    "{machine} | {machines:,} | {codes_bytes:MB} | {encode_seconds:s} | {simulated_encode_seconds:s} | "
    "{encode_dollars:.2f} | {search_seconds:s} | {simulated_search_seconds:s} | {exchange_seconds:s} | "
    "{dollars_per_million_queries:,.0f} | {most_machines:,} machines",
    lambda row: row | {"search_seconds": float(row["scan_seconds"]) + float(row["exchange_seconds"])},
    split="rows",
)


@shown("quality")
def quality(rows: list[Row]) -> Iterator[Lines]:
    codes = [row for row in rows if row["peer"] == "FAISS"]
    files = []
    for some in by("m", [row for row in rows if row["peer"] != "FAISS"]):
        found = {(row["measure"], row["peer"]): row for row in some}
        if cosine := found.get(("cosine", "embzip")):
            size, stated = found["file bytes", "embzip"], found["file bytes", "embzip's README"]["theirs"]
            numbers = {"bytes": size["gpuzip"], "their_bytes": size["theirs"], "stated": stated}
            files.append(cosine | numbers | {"fewer": -float(size["change"])})
    yield table(
        "1,000 x 384, nbits=4 | gpuzip | embzip | fewer bytes | embzip's README | "
        "cosine, gpuzip | cosine, embzip",
        "m={m} | {bytes:,} | {their_bytes:,} | {fewer:.1f} % | {stated:,} | {gpuzip:.4f} | {theirs:.4f}",
        files,
    )
    yield table(
        "{rows:,} x 384, mean of {seeds} seeds | gpuzip | FAISS",
        "{measure}, m={m}, nbits={nbits} | {gpuzip:n} | {theirs:n}",
        codes,
    )


@shown("lookup")
def lookup(rows: list[Row]) -> Iterator[Lines]:
    """A line of one size and width: our time, each peer's over it, and the time without numba."""
    peers = {some[-1]["peer"]: fill("{peer}, {peer_nbytes:MB}", some[-1]) for some in by("peer", rows)}
    body = []
    for some in by("case", [row | {"case": row["group"] + row["nbits"]} for row in rows]):
        first, calls = some[0], int(some[0]["calls"])
        times = {name: float(first[name]) / calls for name in ("seconds", "plain_seconds")}
        ratio_of = {row["peer"]: fill("{ratio:x}", row) for row in some}
        body.append(first | times | {"ratios": " | ".join(ratio_of[peer] for peer in peers)})
    heads = f"ids | bits | memory | gpuzip | {' | '.join(peers.values())} | without numba"
    cells = "{group} | {nbits} | {nbytes:MB} | {seconds:s} | {ratios} | {plain_seconds:s}"
    yield table(heads, cells, body)


# Every operation on every processor

_CLOCK = "{{{0}_peer_seconds:s}} | {{{0}_ratio:x}} ({{{0}_low:x}} to {{{0}_high:x}})"


def _duel(row: Row) -> dict[str, str]:
    """A row with its case in words, and whether it met its target."""
    sizes = {"rows": "{rows:,} rows", "queries": "Q={queries}", "k": "k={k}"}
    case = ", ".join([row["setting"], *(fill(form, row) for name, form in sizes.items() if row[name])])
    words = {"case": case, "beside": row["peer"] or row["note"]}
    for clock in ("one", "all"):
        words[clock] = fill(_CLOCK.format(clock), row) if row[f"{clock}_ratio"] else row["note"] + " | "
    both = {"recall": ":.3f", "roof_share": ":%", "peak_bytes": ":MB"}
    for name, form in both.items():
        words[f"both_{name}"] = fill(f"{{{name}{form}}} / {{peer_{name}{form}}}", row) if row[name] else ""
    verdict = {"True": "pass", "False": "FAIL"}.get(row["ok"], "")
    if (row["ok"], row["all_ok"]) == ("True", "False"):
        verdict += " (FAIL by 2 threads)"
    return row | words | {"target": (fill("{at_least:g}x ", row) * bool(row["at_least"]) + verdict).strip()}


@shown("cpu")
def cpu(rows: list[Row]) -> Iterator[Lines]:
    """For each processor and limit: how many targets are met, and a table for each operation."""
    named = [row | {"processor": fill("{cpu}: {features}", row) + _limited(row)} for row in rows]
    for some in by("processor", named):
        judged = [row["ok"] == "True" for row in some if row["ok"]]
        yield [f"**{some[0]['processor']}**", "", f"{sum(judged)} of {len(judged)} targets are met."]
        heads = "{group} | beside | 1 thread, CPU time | theirs | ratio | 2 threads, wall time | theirs | "
        heads += "ratio | at least | recall, both | share of roof, both | memory, both"
        cells = "{case} | {beside} | {one_seconds:s} | {one} | {all_seconds:s} | {all} | {target} | "
        cells += "{both_recall} | {both_roof_share} | {both_peak_bytes}"
        yield from (table(heads, cells, map(_duel, part)) for part in by("group", some))


def _limited(row: Row) -> str:
    return fill(", limited to {limit}", row) * bool(row["limit"])


# Recall per byte

_TITLE = "{rows:,} x {d}, {trained:,} of them trained on, {queries:,} queries:"
_QUALITY = "{recall:.4f} | {rescored_recall:.4f} | {row_cosine:.4f}"
_COST = "{train_seconds:s} | {encode_rows_per_second:,.0f} | {peak_bytes:MB}"


def _best_first(row: Mapping[str, Any]) -> float:
    return -float(row["recall"] or 0)


@shown("recall")
def best_per_byte(rows: list[Row]) -> Iterator[Lines]:
    """The best codec of each side at every size, and the float rows last."""
    d, body = int(rows[0]["d"]), []
    for some in by("size", rows):
        size = some[0]["size"]
        pair = [best(rows, side, size) for side in ("gpuzip", "FAISS")]
        cells = [fill("`{method}` | {recall:.3f}", row) if row else " | " for row in pair]
        body.append(" | ".join([size, f"{4 * d / int(size):.0f}x", *cells]))
    body.append(f"{4 * d:,} | 1x | float32 | 1.000 | float32 | 1.000")
    heads = "bytes per vector | smaller | gpuzip | recall@10 | FAISS | recall@10"
    yield from ([fill(_TITLE, rows[0])], lines(heads, body))


@shown("recall")
def recall(rows: list[Row]) -> Iterator[Lines]:
    """A line for each form of a method: its recall@10 at every size."""
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    found = {(row["form"], row["side"], row["size"]): row for row in rows}
    forms = dict.fromkeys((row["form"], row["side"]) for row in sorted(rows, key=_best_first))
    body = []
    for form, side in sorted(forms, key=lambda name: name[1] == "FAISS"):
        cells = [_recall(found.get((form, side, size))) for size in sizes]
        body.append(" | ".join([f"`{form.replace(':g', '')}`", side, *cells]))
    ahead = [_ahead(rows, size) for size in sizes]
    body.append(" | ".join(["best of gpuzip over best of FAISS, in no more bytes", "", *ahead]))
    heads = " | ".join(["recall@10", "", *(f"{n} bytes" for n in sizes)])
    yield from ([fill(_TITLE, rows[0])], lines(heads, body))


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


@shown("recall")
def recall_rows(rows: list[Row]) -> Iterator[Lines]:
    """A line for each method, by size."""
    heads = (
        "{size} bytes |  | bytes per vector | beside | recall@10 | rescored x4 | row cosine | bound | "
        "training | encoded per second | peak memory"
    )
    cells = f"`{{method}}` | {{side}} | {{bytes}} | {{state_bytes:MB}} | {_QUALITY} | {{bound:.4f}} | {_COST}"
    some = [row | {"bytes": fill("{row_bytes:g}", row) if row["recall"] else row["note"]} for row in rows]
    yield [fill(_TITLE, rows[0])]
    yield from (table(heads, cells, sorted(part, key=_best_first)) for part in by("size", some))


def of_codec(rows: list[Row]) -> Iterator[Lines]:
    """A line for each row of one of our codecs, by size."""
    heads = (
        "settings | bytes per vector | codec | recall@10 | rescored x4 | row cosine | training | "
        "encoded per second | peak memory"
    )
    cells = f"`{{method}}` | {{row_bytes:g}} | {{state_bytes:MB}} | {_QUALITY} | {_COST}"
    some = sorted(rows, key=lambda row: (int(row["size"]), _best_first(row)))
    yield from ([fill(_TITLE, rows[0])], table(heads, cells, some))


def _is_of(name: str, row: Row) -> bool:
    return row["method"].startswith(f"{name}(") and bool(row["recall"])


#: Our codecs in results/recall.csv, with a table each.
CODECS = ("Product", "Residual", "RaBit", "Scalar", "Binary", "LloydMax", "MixedLloydMax")
TABLES |= {
    f"{name}Quantizer": Table("recall", of_codec, partial(_is_of, f"{name}Quantizer")) for name in CODECS
}


# Pages and the screen


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
