"""Tables of Lloyd-Max codes: how good, how soon found, and in a model."""

from __future__ import annotations

from bench.markdown import Row, as_bytes, as_seconds, measured, read, table, verdict

_BEST_STEPS = "equal steps, mse, per dim"


def bitrates() -> list[str]:
    rows = read("bitrates")
    heads = [
        "bits",
        "",
        "method",
        "bits per value, with levels and scales",
        "file",
        "mse",
        "row cosine",
        "fit",
    ]
    heads += ["ours of as few bytes, mse"]
    parts = []
    for name in dict.fromkeys(row["table"] for row in rows):
        some = [row for row in rows if row["table"] == name and _is_shown(row)]
        title = f"{int(some[0]['rows']):,} x {some[0]['d']}, {name}:"
        parts += [title, "", *table(heads, map(_method, some)), ""]
    return [*parts, *_fits(), "", measured(rows[0])]


def _is_shown(row: Row) -> bool:
    """Of equal steps the best kind alone, of ours not what each dimension's own levels gain."""
    return row["method"] == _BEST_STEPS if row["side"] == "uniform" else "per='dim'" not in row["method"]


def _method(row: Row) -> list[str]:
    cells = [row["bits"], row["side"], row["method"], f"{float(row['bits_a_value']):.3f}"]
    cells += [as_bytes(row["file_bytes"]), f"{float(row['mse']):.3g}", f"{float(row['row_cosine']):.4f}"]
    cells += [as_seconds(row["fit_seconds"]) if row["fit_seconds"] else "-"]
    return [*cells, f"{float(row['rival_mse']):.3g}" if row["rival_mse"] else "-"]


def _fits() -> list[str]:
    rows = read("fits")
    heads = ["levels of", "all values", "memory", f"{int(rows[0]['values']):,} values", "memory"]
    heads += ["scikit-learn", "memory", "ratio", "mse, gpuzip", "mse, scikit-learn"]
    return table(heads, map(_fit, rows))


def _fit(row: Row) -> list[str]:
    case = f"{row['table']}, {int(row['rows']):,} x {row['d']}, {row['bits']} bits"
    times = ((f"{side}seconds", f"{side}peak_bytes") for side in ("", "some_", "peer_"))
    cells = [cell for took, peak in times for cell in (as_seconds(row[took]), as_bytes(row[peak]))]
    errors = [f"{float(row[name]):.3g}" for name in ("some_mse", "peer_mse")]
    return [case, *cells, verdict(float(row["ratio"]), row["peer"])[0], *errors]


def lookup() -> list[str]:
    rows = read("lookup")
    peers = list(dict.fromkeys(row["peer"] for row in rows))
    cases = list(dict.fromkeys((row["group"], row["nbits"]) for row in rows))
    found = {((row["group"], row["nbits"]), row["peer"]): row for row in rows}
    held = {row["peer"]: as_bytes(row["peer_nbytes"]) for row in rows}
    heads = ["ids", "bits", "memory", "gpuzip", *(f"{peer}, {held[peer]}" for peer in peers), "without numba"]
    body = [_looked_up([found[case, peer] for peer in peers]) for case in cases]
    return [*table(heads, body), "", measured(rows[0])]


def _looked_up(rows: list[Row]) -> list[str]:
    """A line of one size and width: our time, each peer's over it, and the time without numba."""
    first = rows[0]
    ours, plain = (float(first[name]) / int(first["calls"]) for name in ("seconds", "plain_seconds"))
    ratios = [verdict(float(row["ratio"]), row["peer"])[0] for row in rows]
    cells = [first["group"], first["nbits"], as_bytes(first["nbytes"]), as_seconds(str(ours))]
    return [*cells, *ratios, as_seconds(str(plain))]


def models() -> list[str]:
    rows = read("models")
    heads = ["bits", "tables", "before", "after", "model", "table's cosine", "texts' cosine"]
    heads += ["queries' cosine", "recall@10"]
    title = f"{int(rows[0]['texts']):,} texts and {rows[0]['queries']} queries, embedded by each model:"
    return [title, "", *table(heads, map(_model, rows)), "", measured(rows[0])]


def _model(row: Row) -> list[str]:
    sizes = [as_bytes(row[name]) for name in ("bytes_before", "bytes_after", "model_bytes")]
    cosines = [f"{float(row[name]):.4f}" for name in ("table_cosine", "text_cosine", "query_cosine")]
    return [row["bits"], row["tables"], *sizes, *cosines, f"{float(row['recall']):.3f}"]
