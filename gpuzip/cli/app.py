"""The commands and their options. Each imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from gpuzip import __version__
from gpuzip.cli.group import Commands
from gpuzip.cli.signals import uninterrupted

app: typer.Typer = typer.Typer(
    name="gpuzip",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Compress embedding vectors 4 to 100 times, and search them without unpacking.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 target not met, 130 interrupted, 141 pipe closed.",
)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Seed = Annotated[int, typer.Option(help="Seed of all random draws.")]
Name = Annotated[str | None, typer.Option(help="Array, tensor or column, where IN has several.")]
Format = Annotated[str | None, typer.Option("--from", help="Format of IN, where its suffix does not say.")]
Device = Annotated[str, typer.Option(help="Device to compute on, such as cuda.")]
Rows = Annotated[
    str,
    typer.Argument(metavar="IN", help="npy, npz, safetensors, parquet, arrow, hdf5, fvecs, bvecs; or -."),
]
Codes = Annotated[str, typer.Argument(metavar="FILE", help="File, folder or dataset of gpuzip; or -.")]
Top = Annotated[int, typer.Option("-k", help="Neighbours per query.")]
Metric = Annotated[Literal["cosine", "ip", "l2"], typer.Option(help="How rows are compared.")]
Queries = Annotated[str | None, typer.Option(help="Queries like those to come: a matrix.")]
Specs = Annotated[list[str] | None, typer.Option("--codec", metavar="SPEC", help="Codec; may be repeated.")]
MaxBytes = Annotated[str | None, typer.Option(metavar="SIZE", help="Most bytes of OUT: 48MB, 29MiB.")]
MinCosine = Annotated[float | None, typer.Option(help="Least mean cosine of rows.")]
MinRecall = Annotated[float | None, typer.Option(help="Least share of the k nearest rows found.")]


@app.callback(invoke_without_command=True)
def options(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command(no_args_is_help=True)
def compress(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="Matrix, folder of them, or word vectors in text; or -.")
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="OUT", help=".ezip file, folder/ of a dataset, .sfry folder of words; or -."),
    ],
    max_bytes: MaxBytes = None,
    min_cosine: MinCosine = None,
    min_recall: MinRecall = None,
    ratio: Annotated[float | None, typer.Option(help="Least ratio of bytes: 32.")] = None,
    bits_per_dim: Annotated[float | None, typer.Option(help="Most bits per value: 1.5.")] = None,
    codec: Annotated[str | None, typer.Option(metavar="SPEC", help="Codec: PQ48x8, SQ8, LloydMax2.")] = None,
    k: Annotated[int | None, typer.Option("-k", help="Neighbours that recall counts. Default: 10.")] = None,
    metric: Annotated[
        Literal["cosine", "ip", "l2"] | None, typer.Option(help="Metric of recall. Default: cosine.")
    ] = None,
    queries: Queries = None,
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Recall of a search that rescores by IN.")
    ] = False,
    for_: Annotated[
        Literal["search", "storage"] | None, typer.Option("--for", help="What counts within a size.")
    ] = None,
    seed: Seed = 0,
    name: Name = None,
    format: Format = None,
    device: Device = "cpu",
    max_memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Read larger IN chunk by chunk in so much: 1GB.")
    ] = None,
    sample: Annotated[int | None, typer.Option(help="Rows to fit on, where IN is read by chunks.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a dataset, or what a run by chunks has begun.")
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compress rows to a size, a cosine or a recall.

    A size and qualities may be combined. Without any, product codes of 16 columns per byte are made.
    A dataset is filled chunk by chunk; an interrupted run goes on when it is called again.
    """
    with uninterrupted():
        from gpuzip.cli import compressing

    wanted = {
        "max_bytes": max_bytes,
        "min_cosine": min_cosine,
        "min_recall": min_recall,
        "ratio": ratio,
        "bits_per_dim": bits_per_dim,
        "k": k,
        "metric": metric,
        "rescore": rescore or None,
        "for_": for_,
    }
    chunks = compressing.Chunks(max_memory, sample, overwrite)
    job = compressing.Job(source, target, codec, wanted, queries, seed, name, format, device, chunks)
    compressing.run(job, json)


@app.command(no_args_is_help=True)
def decompress(
    source: Codes,
    target: Annotated[
        str, typer.Argument(metavar="OUT", help="npy, npz, safetensors, parquet, fvecs; or -.")
    ],
    device: Device = "cpu",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Decode all rows to a file of another format."""
    with uninterrupted():
        from gpuzip.cli import decompressing

    decompressing.run(source, target, device, json)


@app.command(no_args_is_help=True)
def info(
    source: Annotated[str, typer.Argument(metavar="FILE", help="Codes, a dataset, or a matrix.")],
    name: Name = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show sizes, codec and measured quality.

    For a matrix, show what it takes as lists, floats, bytes and bits.
    """
    with uninterrupted():
        from gpuzip.cli import inspecting

    inspecting.info(source, name, json)


@app.command(no_args_is_help=True)
def verify(
    sources: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files or folders to check.")],
    min_cosine: Annotated[float | None, typer.Option(help="Least stored mean cosine of rows.")] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="IN", help="Source rows: measure the quality anew.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Verify every checksum, and the quality."""
    with uninterrupted():
        from gpuzip.cli import inspecting

    inspecting.verify(sources, min_cosine, source, json)


@app.command(no_args_is_help=True)
def search(
    source: Codes,
    queries: Annotated[str, typer.Argument(metavar="QUERIES", help="Matrix of queries; or -.")],
    k: Top = 10,
    metric: Annotated[
        Literal["cosine", "ip", "l2", "hamming"], typer.Option(help="How rows are compared.")
    ] = "cosine",
    rescore: Annotated[
        str | None, typer.Option(metavar="IN", help="Source rows, or better codes, to rescore candidates.")
    ] = None,
    multiplier: Annotated[float, typer.Option(help="Candidates per row, with --rescore.")] = 4,
    candidates: Annotated[str | None, typer.Option(help="Metric that finds candidates.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="NPZ", help="Write ids and values to an npz file.")
    ] = None,
    device: Device = "cpu",
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the k nearest rows of every query.

    Prints a line per row found: query, rank, id and score, with tabs between.
    """
    with uninterrupted():
        from gpuzip.cli import searching

    searching.run(source, queries, k, metric, rescore, multiplier, candidates, out, device, json)


@app.command(no_args_is_help=True)
def report(
    source: Rows,
    html: Annotated[str | None, typer.Option(metavar="OUT", help="Write a page.")] = None,
    codec: Specs = None,
    queries: Queries = None,
    k: Top = 10,
    seed: Seed = 0,
    name: Name = None,
    format: Format = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure codecs on your rows."""
    with uninterrupted():
        from gpuzip.cli import reporting

    reporting.run(source, html, codec, queries, k, seed, (name, format), json)


@app.command(no_args_is_help=True)
def choose(
    source: Rows,
    max_bytes: MaxBytes = None,
    min_cosine: MinCosine = None,
    min_recall: MinRecall = None,
    k: Top = 10,
    metric: Metric = "cosine",
    queries: Queries = None,
    sample: Annotated[int, typer.Option(help="Most rows to measure on.")] = 20_000,
    seed: Seed = 0,
    name: Name = None,
    format: Format = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the Pareto table, and what to pick."""
    with uninterrupted():
        from gpuzip.cli import choosing

    target = {"max_bytes": max_bytes, "min_cosine": min_cosine, "min_recall": min_recall}
    choosing.run(source, target, k, metric, queries, sample, seed, (name, format), json)


@app.command(no_args_is_help=True)
def convert(
    source: Annotated[str, typer.Argument(metavar="IN", help="Matrix, codes, or a file of another program.")],
    target: Annotated[str, typer.Argument(metavar="OUT", help="Its suffix names the format.")],
    format: Annotated[
        str | None, typer.Option("--from", help="Kind of IN: a format, faiss, usearch, smallfry, embzip.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="Kind of OUT.")] = None,
    name: Name = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Convert between files of rows or of codes.

    Rows: npy, npz, safetensors, parquet, fvecs, bvecs; arrow, hdf5 and ivecs are read. Codes: ezip, faiss,
    usearch; smallfry and embzip are read. Codes become rows by decoding.
    """
    with uninterrupted():
        from gpuzip.cli import converting

    converting.run(source, target, format, to, name, json)


@app.command()
def env(json: Json = False, debug: Debug = False) -> None:
    """Show versions, devices and paths.

    Which path each operator takes here and why, and what an extra would add.
    """
    with uninterrupted():
        from gpuzip.cli import environment

    environment.run(json)
