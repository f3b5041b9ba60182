"""Tables of recall per byte: the best of each side, a line per method, and every row by size or by codec."""

from __future__ import annotations

from bench.markdown import Row, as_bytes, as_seconds, measured, read, table
from bench.recall.targets import best


def best_per_byte() -> list[str]:
    """The best codec of each side at every size, and the float rows last."""
    rows = read("recall")
    d = int(rows[0]["d"])
    body = []
    for size in dict.fromkeys(row["size"] for row in rows):
        pair = [best(rows, side, size) for side in ("gpuzip", "FAISS")]
        cells = [cell for row in pair for cell in _named(row)]
        body.append([size, f"{4 * d / int(size):.0f}x", *cells])
    body.append([f"{4 * d:,}", "1x", "float32", f"{1:.3f}", "float32", f"{1:.3f}"])
    heads = ["bytes per vector", "smaller", "gpuzip", "recall@10", "FAISS", "recall@10"]
    return [*_about(rows), "", *table(heads, body), "", _measured(rows)]


def _named(row: Row | None) -> list[str]:
    return ["", ""] if row is None else [f"`{row['method']}`", f"{float(row['recall']):.3f}"]


def of_codec(name: str) -> list[str]:
    """A line for each row of one of our codecs, by size."""
    everything = read("recall")
    rows = [row for row in everything if row["method"].startswith(f"{name}(") and row["recall"]]
    heads = ["settings", "bytes per vector", "codec", "recall@10", "rescored x4", "row cosine", "training"]
    heads += ["encoded per second", "peak memory"]
    some = sorted(rows, key=lambda row: (int(row["size"]), _best_first(row)))
    body = [[cell for i, cell in enumerate(_method(row)) if i not in _SIDE_AND_BOUND] for row in some]
    return [*_about(everything), "", *table(heads, body), "", _measured(rows)]


#: Cells of `_method` that say nothing among rows of one codec.
_SIDE_AND_BOUND = (1, 7)


def recall() -> list[str]:
    """A line for each form of a method: its recall@10 at every size."""
    rows = read("recall")
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    forms = list(dict.fromkeys((row["form"], row["side"]) for row in sorted(rows, key=_best_first)))
    found = {(row["form"], row["side"], row["size"]): row for row in rows}
    heads = ["recall@10", "", *(f"{size} bytes" for size in sizes)]
    body = [
        [f"`{form.replace(':g', '')}`", side, *(_recall(found.get((form, side, size))) for size in sizes)]
        for form, side in sorted(forms, key=lambda name: name[1] == "FAISS")
    ]
    ahead = [
        "best of gpuzip over best of FAISS, in no more bytes",
        "",
        *(_ahead(rows, size) for size in sizes),
    ]
    return [*_about(rows), "", *table(heads, [*body, ahead]), "", _measured(rows)]


def recall_rows() -> list[str]:
    """A line for each method, by size."""
    rows, parts = read("recall"), []
    for size in dict.fromkeys(row["size"] for row in rows):
        some = sorted((row for row in rows if row["size"] == size), key=_best_first)
        heads = [f"{size} bytes", "", "bytes per vector", "beside", "recall@10", "rescored x4", "row cosine"]
        heads += ["bound", "training", "encoded per second", "peak memory"]
        parts += [*table(heads, map(_method, some)), ""]
    return [*_about(rows), "", *parts, _measured(rows)]


def _about(rows: list[Row]) -> list[str]:
    first = rows[0]
    title = f"{int(first['rows']):,} x {first['d']}, {int(first['trained']):,} of them trained on"
    return [f"{title}, {int(first['queries']):,} queries:"]


def _measured(rows: list[Row]) -> str:
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    return measured(max(rows, key=lambda row: row["date"]) | {"commit": commits})


def _ahead(rows: list[Row], size: str) -> str:
    ours, theirs = (best(rows, side, size) for side in ("gpuzip", "FAISS"))
    return f"{float(ours['recall']) - float(theirs['recall']):+.3f}" if ours and theirs else ""


def _recall(row: Row | None) -> str:
    """With the true bytes of a vector, where they are others; why not, where there is none."""
    if row is None:
        return ""
    if not row["recall"]:
        return "too slow"
    more = float(row["row_bytes"]) - float(row["size"])
    return f"{float(row['recall']):.3f}" + f" ({more:+g} B)" * bool(more)


def progressive() -> list[str]:
    rows = read("recall_progressive")
    heads = [
        f"{int(rows[0]['rows']):,} rows, {rows[0]['queries']} queries at once",
        "scanned, and read again",
    ]
    heads += ["bytes read", "recall@10", "queries/s"]
    return [*table(heads, map(_search, rows)), "", measured(rows[0])]


def _search(row: Row) -> list[str]:
    name = [f"`RaBitQuantizer({row['bits']})`, {row['row_bytes']} bytes", row["search"]]
    share = f"{100 * float(row['share_read']):.1f} %"
    return [*name, share, f"{float(row['recall']):.4f}", f"{float(row['queries_per_second']):,.0f}"]


def _best_first(row: Row) -> float:
    return -float(row["recall"] or 0)


def _method(row: Row) -> list[str]:
    name = [f"`{row['method']}`", row["side"]]
    if not row["recall"]:
        return [*name, row["note"], *["-"] * 8]
    quality = [f"{float(row[c]):.4f}" for c in ("recall", "rescored_recall", "row_cosine", "bound")]
    speed = [as_seconds(row["train_seconds"]), f"{float(row['encode_rows_per_second']):,.0f}"]
    sizes = [f"{float(row['row_bytes']):g}", as_bytes(row["state_bytes"])]
    return [*name, *sizes, *quality, *speed, as_bytes(row["peak_bytes"])]
