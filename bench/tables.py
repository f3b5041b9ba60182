"""Write the tables of README.md and docs/ from bench/results/*.csv.

    python -m bench.tables [--check]

Replaces what stands between <!-- table:NAME --> and <!-- /table -->. With --check nothing is written, and the
exit status is 1 when one is out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
from functools import partial
from typing import Any

from bench.codebook_tables import bitrates, lookup, models
from bench.markdown import ROOT, Row, as_bytes, as_seconds, measured, number, read, table, verdict
from bench.outcome_tables import outcomes
from bench.recall.tables import best_per_byte, of_codec, progressive, recall, recall_rows

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

#: Our codecs in results/recall.csv, with a table each.
CODECS = (
    "ProductQuantizer",
    "ResidualQuantizer",
    "RaBitQuantizer",
    "ScalarQuantizer",
    "BinaryQuantizer",
    "LloydMaxQuantizer",
    "MixedLloydMaxQuantizer",
)

_BLOCK = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def quality() -> list[str]:
    rows = read("quality")
    heads = ["1,000 x 384, nbits=4", "gpuzip", "embzip", "fewer bytes", "embzip's README"]
    heads += ["cosine, gpuzip", "cosine, embzip"]
    files = [_file(rows, row["m"]) for row in rows if row["measure"] == "cosine"]
    codes = [row for row in rows if row["peer"] == "FAISS"]
    title = f"{int(codes[0]['rows']):,} x 384, mean of {codes[0]['seeds']} seeds"
    parts = [table(heads, files), table([title, "gpuzip", "FAISS"], map(_code, codes))]
    return [*parts[0], "", *parts[1], "", measured(rows[0])]


def _file(rows: list[Row], m: str) -> list[str]:
    """A line of the files of one m: sizes here, by embzip's README, and cosines."""
    found = {(row["measure"], row["peer"]): row for row in rows if row["m"] == m}
    size, cosine = found["file bytes", "embzip"], found["cosine", "embzip"]
    sizes = [size["gpuzip"], size["theirs"], found["file bytes", "embzip's README"]["theirs"]]
    ours, theirs, stated = (f"{int(bytes_):,}" for bytes_ in sizes)
    fewer = f"{-float(size['change']):.1f} %"
    return [f"m={m}", ours, theirs, fewer, stated, *(f"{float(cosine[c]):.4f}" for c in ("gpuzip", "theirs"))]


def _code(row: Row) -> list[str]:
    numbers = [number(row[side]) for side in ("gpuzip", "theirs")]
    return [f"{row['measure']}, m={row['m']}, nbits={row['nbits']}", *numbers]


def speed(name: str = "pq") -> list[str]:
    rows = read(name)
    heads = ["", "beside", "gpuzip", "theirs", "ratio", "faster"]
    heads += [*_without_numba(rows[0], "ratio without numba"), "memory, gpuzip", "memory, theirs"]
    return [*table(heads, map(_race, rows)), "", measured(rows[0])]


def _race(row: Row) -> list[str]:
    """A line of one case and one peer; a peer that was not timed has a note of why."""
    peer = row["peer"] + (f", recall {float(row['recall']):.3f}" if row["recall"] else "")
    memory = [as_bytes(row["peak_bytes"]), as_bytes(row["peer_peak_bytes"])]
    if not row["ratio"]:
        untimed = [_case(row), peer, as_seconds(row["seconds"]), row["note"], "", ""]
        return [*untimed, *_without_numba(row, ""), *memory]
    times = [as_seconds(row["seconds"]), as_seconds(row["peer_seconds"])]
    plain = verdict(float(row.get("plain_ratio") or "nan"), row["peer"])[0]
    faster = verdict(float(row["ratio"]), row["peer"])
    return [_case(row), peer, *times, *faster, *_without_numba(row, plain), *memory]


def _without_numba(row: Row, cell: str) -> list[str]:
    """The cell of that column, which older results lack."""
    return [cell] if "plain_ratio" in row else []


def memory() -> list[str]:
    rows = read("memory")
    title = f"{int(rows[0]['rows']):,} x {rows[0]['d']} float32, m={rows[0]['m']}, nbits={rows[0]['nbits']}"
    body = [[_task(row), as_bytes(row["peak_bytes"]), as_seconds(row["seconds"])] for row in rows]
    return [*table([title, "peak memory", "time"], body), "", measured(rows[0])]


def rag() -> list[str]:
    rows = read("rag")
    parts = []
    for n in dict.fromkeys(row["rows"] for row in rows):
        some = [row for row in rows if row["rows"] == n]
        heads = [
            f"{int(n):,} x {some[0]['d']}, {int(some[0]['real']):,} of them real",
            "in memory",
            "smaller",
        ]
        heads += ["build", "peak", "queries/s, 1", "queries/s, 256", "recall@10", "similarity kept"]
        parts += [*table(heads, map(_store, some)), ""]
    return [*parts, measured(rows[0])]


def _store(row: Row) -> list[str]:
    floats = 4 * int(row["rows"]) * int(row["d"])
    took = as_seconds(row["build_seconds"]) if float(row["build_seconds"]) else "-"
    rates = [f"{float(row[column]):,.0f}" for column in ("qps_1", "qps_256")]
    quality = [f"{float(row['recall']):.3f}", f"{100 * float(row['similarity']):.1f} %"]
    size = [as_bytes(row["nbytes"]), f"{floats / float(row['nbytes']):.1f}x"]
    return [row["name"], *size, took, as_bytes(row["peak_bytes"]), *rates, *quality]


def sizes() -> list[str]:
    rows = read("sizes")
    heads = [f"{int(rows[0]['rows']):,} x {rows[0]['d']}", "values or codes", "codec", "overhead", "all"]
    heads += ["float32 / all", "float64 / all"]
    return [*table(heads, map(_size, rows)), "", measured(rows[0])]


def _size(row: Row) -> list[str]:
    counts = [f"{int(row[name]):,}" for name in ("values", "codec", "overhead", "nbytes")]
    return [row["name"], *counts, f"{float(row['float32_ratio']):.2f}", f"{float(row['float64_ratio']):.2f}"]


def codes() -> list[str]:
    return speed("codes")


TABLES = {"quality": quality, "speed": speed, "codes": codes, "memory": memory, "rag": rag}
TABLES |= {
    "bitrates": bitrates,
    "lookup": lookup,
    "models": models,
    "recall": recall,
    "recall_rows": recall_rows,
    "progressive": progressive,
    "outcomes": outcomes,
    "best_per_byte": best_per_byte,
    "sizes": sizes,
}
TABLES |= {name: partial(of_codec, name) for name in CODECS}


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


def _case(row: Row) -> str:
    queries = (
        f", {row['queries']} {'query' if row['queries'] == '1' else 'queries'}" if row["queries"] else ""
    )
    return f"{row['group']}, {int(row['rows']):,} rows, {setting(row)}{queries}"


def setting(row: dict[str, Any]) -> str:
    """`m=48, nbits=8` of product quantization, `384 bits` of binary codes."""
    return (
        f"m={row['m']}, nbits={row['nbits']}"
        if row["m"]
        else f"{row['nbits']} bit{'s' * (row['nbits'] != '1')}"
    )


def _task(row: Row) -> str:
    return f"{row['task']}, {row['queries']} queries" if row["queries"] else row["task"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="change nothing, fail when a page is out of date"
    )
    check = parser.parse_args().check
    stale = renew(check)
    if check and stale:
        print(f"{', '.join(stale)}: out of date, run python -m bench.tables")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
