"""README's table of recall per byte."""

from __future__ import annotations

from bench.markdown import Row, as_bytes, as_seconds, measured, read, table


def recall() -> list[str]:
    rows = read("recall")
    about = rows[0]
    title = f"{int(about['rows']):,} x {about['d']}, {int(about['trained']):,} of them trained on, "
    parts = [f"{title}{int(about['queries']):,} queries:", ""]
    for size in dict.fromkeys(row["size"] for row in rows):
        some = sorted((row for row in rows if row["size"] == size), key=_best_first)
        heads = [f"{size} bytes", "", "bytes a vector", "beside", "recall@10", "rescored x4", "row cosine"]
        heads += ["bound", "training", "encoded a second", "peak memory"]
        parts += [*table(heads, map(_method, some)), ""]
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    return [*parts, measured(max(rows, key=lambda row: row["date"]) | {"commit": commits})]


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
