"""The tables of recall, of all methods and of each codec, as they stand in docs/."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from bench.cells import Lines, fill, lines
from bench.checkout import Row
from bench.recall.targets import best
from bench.table import TABLES, Table, by, shown, table

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
