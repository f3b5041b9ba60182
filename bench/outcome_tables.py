"""The table of outcomes that were asked for."""

from __future__ import annotations

from bench.markdown import Row, as_bytes, as_seconds, measured, read, table


def outcomes() -> list[str]:
    rows = read("outcomes")
    heads = [f"{int(rows[0]['rows']):,} rows", "asked for", "chosen", "bytes", "likely", "on unseen rows"]
    heads += ["best of the grid", "more bytes", "took"]
    return [*table(heads, map(_outcome, rows)), "", measured(rows[0])]


def _outcome(row: Row) -> list[str]:
    quality = [f"{float(row[column]):.4f}" for column in ("likely", "unseen")]
    best = [f"`{row['best']}`", f"{100 * float(row['extra']):+.1f} %"]
    asked = [f"{row['target']} {row['floor']}", f"`{row['codec']}`", as_bytes(row["nbytes"])]
    return [f"{row['matrix']}, {row['d']} columns", *asked, *quality, *best, as_seconds(row["seconds"])]
