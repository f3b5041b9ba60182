"""`gpuzip compress`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpuzip
from gpuzip.cli import by_chunks, sources
from gpuzip.cli.failure import CommandError, Exit
from gpuzip.cli.inspecting import facts_of, json_of
from gpuzip.cli.output import Cost, Output, cost_line, facts, measured, rows_of, size
from gpuzip.storage import check_target

_OF_WORDS = {"max_bytes", "bits_per_dim"}


@dataclass(frozen=True)
class Chunks:
    """Arguments of `gpuzip.compress_file` that `gpuzip.compress` lacks; None for what was not given."""

    max_memory: str | None
    sample_rows: int | None
    overwrite: bool


@dataclass(frozen=True)
class Job:
    """The arguments and options of the command.

    Attributes
    ----------
    source, target : str
        IN and OUT.
    spec : str or None
        The codec, which no target and no queries may stand beside.
    wanted : dict
        Keyword arguments of `gpuzip.compress`; None for what was not given.
    queries : str or None
        File of queries.
    seed : int
        Seed of all random draws.
    name, format, device : str or None
        As `sources.matrix` takes them.
    chunks : Chunks
        How rows are read that do not fit in memory.
    """

    source: str
    target: str
    spec: str | None
    wanted: dict[str, Any]
    queries: str | None
    seed: int
    name: str | None
    format: str | None
    device: str
    chunks: Chunks

    @property
    def given(self) -> dict[str, Any]:
        """The arguments of `gpuzip.compress` that were given."""
        return {name: value for name, value in self.wanted.items() if value is not None}


def run(job: Job, as_json: bool) -> None:
    """Compress IN to OUT, and show what came of it."""
    beside = [*job.given, *(["queries"] if job.queries else [])]
    if job.spec is not None and beside:
        raise CommandError(
            f"compress: --codec must be given alone; got {_options(beside)} too. Omit one.", Exit.USAGE
        )
    out = Output(as_json, data_on_stdout=job.target == "-")
    with measured() as cost:
        if sources.is_words(job.source):
            _words(job, out, cost)
        elif by_chunks.needed(job.source, job.target, job.name, job.format, job.chunks.max_memory):
            _by_chunks(job, out, cost)
        else:
            _matrix(job, out, cost)


def _options(names: list[str]) -> str:
    return ", ".join(f"--{name.rstrip('_').replace('_', '-')}" for name in names)


def _matrix(job: Job, out: Output, cost: Cost) -> None:
    if job.target != "-":
        check_target(job.target)  # before the training, which may take long
    x, progress = sources.matrix(job.source, job.name, job.format, job.device), out.progress
    cost.rows = len(x)
    if job.spec is not None:
        codec = gpuzip.from_spec(job.spec).fit_quietly(x, seed=job.seed, progress=progress)
        codes = codec.encode(x, progress=progress)
    else:
        queries = None if job.queries is None else sources.matrix(job.queries, device=job.device)
        codes = gpuzip.compress(x, seed=job.seed, queries=queries, progress=progress, **job.given)
    info = codes.save(sys.stdout.buffer if job.target == "-" else job.target, x, progress=progress)
    spent = cost.stop()
    text = facts(str(info.path), facts_of(info) | {"took": cost_line(spent), "why": codes.why})
    out.show(json_of(info) | spent | {"why": codes.why}, text)


def _by_chunks(job: Job, out: Output, cost: Cost) -> None:
    queries = None if job.queries is None else sources.matrix(job.queries)
    done = gpuzip.compress_file(
        job.source,
        job.target,
        job.spec,
        key=job.name,
        format=job.format,
        queries=queries,
        seed=job.seed,
        device=job.device,
        progress=out.progress,
        **vars(job.chunks),
        **job.given,
    )
    cost.rows = done.n - done.resumed
    spent = cost.stop()
    some = by_chunks.facts_of(done) | {"took": cost_line(spent), "why": done.why}
    out.show(by_chunks.json_of(done) | spent | {"why": done.why}, facts(str(done.path), some))


def _words(job: Job, out: Output, cost: Cost) -> None:
    """Word vectors, to a folder."""
    if other := sorted(set(job.given) - _OF_WORDS):
        raise CommandError(
            f"compress: {_options(other)} must not be given for word vectors. Use --max-bytes, "
            "--bits-per-dim or --codec.",
            Exit.USAGE,
        )
    words = _read(job, out)
    words.save(job.target)
    cost.rows = len(words)
    spent, shape = cost.stop(), (len(words), words.codes.shape[1])
    nbytes, floats = sum(file.stat().st_size for file in Path(job.target).iterdir()), 4 * shape[0] * shape[1]
    codes = words.codes.nbytes
    some = {
        "words": rows_of(shape),
        "size": f"{size(nbytes)} with the words",
        "codes": f"{size(codes)}, {floats / codes:.1f}x smaller than float32",
        "took": cost_line(spent),
    }
    result = {"path": job.target, "words": shape[0], "d": shape[1], "nbytes": nbytes, "codes_nbytes": codes}
    out.show(result | spent, facts(job.target, some))


def _read(job: Job, out: Output) -> gpuzip.WordVectors:
    options: dict[str, Any] = {"seed": job.seed} | job.given
    if job.spec is not None:
        options["codec"] = gpuzip.from_spec(job.spec)
    is_binary = ".bin" in Path(job.source).suffixes
    read = gpuzip.WordVectors.from_binary if is_binary else gpuzip.WordVectors.from_text
    return read(job.source, progress=out.progress, **options)
