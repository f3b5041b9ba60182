"""The tables of speeds, sizes and all results but those of recall, as they stand in README.md and docs/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bench.cells import Lines, fill
from bench.checkout import Row
from bench.table import by, form, shown, table


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
    for name, style in both.items():
        words[f"both_{name}"] = fill(f"{{{name}{style}}} / {{peer_{name}{style}}}", row) if row[name] else ""
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
