"""`gpuzip choose`."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np

import gpuzip
from gpuzip.choose import Table, Tried
from gpuzip.choose.by_bytes import parse_bytes
from gpuzip.cli import sources
from gpuzip.cli.failure import CommandError, Exit
from gpuzip.cli.output import Output, size
from gpuzip.storage import LONG_HEADER_BYTES, table_bytes

Picks = list[tuple[dict[str, Any], Tried | None]]  # targets, and what to take

_RECALLS = (0.9, 0.95, 0.99)  # shown where no target is given


def run(
    source: str,
    target: dict[str, Any],
    k: int,
    metric: Any,
    queries: str | None,
    most: int,
    seed: int,
    place: tuple[str | None, str | None],
    as_json: bool,
) -> None:
    """Print the table of codecs, and the smallest or best of it for a target."""
    out = Output(as_json)
    x = sources.matrix(source, *place)
    some = _sampled(x, most, seed)
    asked = None if queries is None else sources.matrix(queries)
    table = gpuzip.pareto(some, k=k, metric=metric, queries=asked, seed=seed, progress=out.progress)
    given = {name: value for name, value in target.items() if value is not None}
    if "max_bytes" in given:
        given["max_bytes"] = parse_bytes("choose", "max_bytes", given["max_bytes"])
    targets = [given] if given else [{"min_recall": recall} for recall in _RECALLS]
    picks = [(one, _pick(table, one, len(x), len(some))) for one in targets]
    if given and picks[0][1] is None:
        out.show(_json(table, picks, len(x), len(some)), str(table))
        raise CommandError(
            f"choose: no codec of the table reaches {_text(given)}. Ask for less.", Exit.NOT_MET
        )
    lines = [_advice(one, row, source, k, len(x), len(some)) for one, row in picks]
    where = f"Measured on {len(some):,} of {len(x):,} rows, whose bytes these are; recall@{k} by {metric}."
    out.show(_json(table, picks, len(x), len(some)), "\n".join([str(table), "", where, "", *lines]))


def _sampled(x: Any, most: int, seed: int) -> Any:
    if len(x) <= most:
        return x
    ids = np.sort(np.random.default_rng(seed).choice(len(x), most, replace=False, shuffle=False))
    return x[ids]


def _bytes(row: Tried, n: int, measured: int) -> int:
    """Upper bound for the file of n rows: codes, codec and headers."""
    nbytes = n * row.code_size + row.nbytes - measured * row.code_size
    return nbytes + LONG_HEADER_BYTES + table_bytes(nbytes)


def _pick(table: Table, target: dict[str, Any], n: int, measured: int) -> Tried | None:
    """The smallest that is sure enough of the floors, or without floors the best within the size."""
    fits = [row for row in table if _bytes(row, n, measured) <= target.get("max_bytes", float("inf"))]
    fits = [row for row in fits if row.sure_cosine >= target.get("min_cosine", -1)]
    fits = [row for row in fits if (row.sure_recall or 0.0) >= target.get("min_recall", 0)]
    if not fits:
        return None
    if {"min_cosine", "min_recall"} & set(target):
        return min(fits, key=lambda row: _bytes(row, n, measured))
    return max(fits, key=lambda row: row.sure_recall or 0.0)


def _text(target: dict[str, Any]) -> str:
    words = {"max_bytes": "at most {}", "min_cosine": "a cosine of {}", "min_recall": "a recall of {}"}
    shown = {name: size(value) if name == "max_bytes" else value for name, value in target.items()}
    return " and ".join(words[name].format(value) for name, value in shown.items())


def _advice(target: dict[str, Any], row: Tried | None, source: str, k: int, n: int, measured: int) -> str:
    asked = _text(target)
    if row is None:
        return f"For {asked}: no codec of the table."
    command = shlex.join(["gpuzip", "compress", source, "OUT.ezip", "--codec", row.spec])
    return f"For {asked}: {row.spec}, {size(_bytes(row, n, measured))}.\n  {command}"


def _json(table: Table, picks: Picks, n: int, measured: int) -> dict[str, Any]:
    chosen = [
        {"target": one, "spec": None if row is None else row.spec, "nbytes": row and _bytes(row, n, measured)}
        for one, row in picks
    ]
    return {"n": n, "measured_rows": measured, "table": [row.numbers() for row in table], "picks": chosen}
