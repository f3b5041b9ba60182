"""`gpuzip compress`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gpuzip
from gpuzip._core.bars import Bar
from gpuzip.cli import sources
from gpuzip.cli.failure import CommandError, Exit
from gpuzip.cli.output import Cost, Output, cost_line, facts, measured, rows_of, size
from gpuzip.storage import check_target

Place = tuple[str | None, str | None, str]  # name, format, device


def run(
    source: str,
    target: str,
    spec: str | None,
    wanted: dict[str, Any],
    queries: str | None,
    seed: int,
    place: Place,
    as_json: bool,
) -> None:
    """Compress `source` to `target`, and show what came of it."""
    given = {name: value for name, value in wanted.items() if value is not None}
    if spec is not None and (given or queries):
        named = ", ".join(
            f"--{name.rstrip('_').replace('_', '-')}"
            for name in (*given, "queries"[: 9 * bool(queries)])
            if name
        )
        raise CommandError(f"compress: --codec must be given alone; got {named} too. Omit one.", Exit.USAGE)
    out = Output(as_json, data_on_stdout=target == "-")
    if target != "-":
        check_target(target)  # before the training, which may take long
    with measured() as cost:
        if sources.is_words(source):
            _words(source, target, spec, given, seed, out, cost)
        else:
            _matrix(source, target, spec, given, queries, seed, place, out, cost)


def _matrix(
    source: str,
    target: str,
    spec: str | None,
    given: dict[str, Any],
    queries: str | None,
    seed: int,
    place: Place,
    out: Output,
    cost: Cost,
) -> None:
    x, progress = sources.matrix(source, *place), out.progress
    cost.rows = len(x)
    if spec is not None:
        codec = gpuzip.from_spec(spec).fit_quietly(x, seed=seed, progress=progress)
        codes = codec.encode(x, progress=progress)
    else:
        asked = None if queries is None else sources.matrix(queries, device=place[2])
        codes = gpuzip.compress(x, seed=seed, queries=asked, progress=progress, **given)
    info = codes.save(sys.stdout.buffer if target == "-" else target, x, progress=progress)
    _show(info, codes.why, out, cost)


def _show(info: gpuzip.FileInfo, why: str | None, out: Output, cost: Cost) -> None:
    from gpuzip.cli.inspecting import facts_of, json_of

    spent = cost.stop()
    text = facts(str(info.path), facts_of(info) | {"took": cost_line(spent), "why": why})
    out.show(json_of(info) | spent | {"why": why}, text)


def _words(
    source: str, target: str, spec: str | None, given: dict[str, Any], seed: int, out: Output, cost: Cost
) -> None:
    """Word vectors, to a folder."""
    if other := set(given) - {"max_bytes", "bits_per_dim"}:
        raise CommandError(
            f"compress: {', '.join(sorted(other))} must not be given for word vectors. Use --max-bytes, "
            "--bits-per-dim or --codec.",
            Exit.USAGE,
        )
    options = given | ({} if spec is None else {"codec": gpuzip.from_spec(spec)})
    words = _read(source, out.progress, {"seed": seed} | options)
    words.save(target)
    cost.rows = len(words)
    spent, nbytes = cost.stop(), sum(file.stat().st_size for file in Path(target).iterdir())
    shape = (len(words), words.codes.shape[1])
    floats = 4 * shape[0] * shape[1]
    some = {
        "words": rows_of(shape),
        "size": f"{size(nbytes)} with the words; codes {size(words.codes.nbytes)}, "
        f"{floats / words.codes.nbytes:.1f}x smaller than float32",
        "took": cost_line(spent),
    }
    result = {"path": target, "words": shape[0], "d": shape[1], "nbytes": nbytes}
    out.show(result | {"codes_nbytes": words.codes.nbytes} | spent, facts(target, some))


def _read(source: str, progress: Bar | None, options: dict[str, Any]) -> gpuzip.WordVectors:
    is_binary = Path(source).suffix == ".bin" or Path(source).stem.endswith(".bin")
    read = gpuzip.WordVectors.from_binary if is_binary else gpuzip.WordVectors.from_text
    return read(source, progress=progress, **options)
