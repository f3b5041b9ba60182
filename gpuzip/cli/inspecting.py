"""`gpuzip info` and `gpuzip verify`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gpuzip
from gpuzip._core.tables import text_table
from gpuzip.cli import sources
from gpuzip.cli.failure import CommandError, Exit, described
from gpuzip.cli.output import Output, facts, rows_of, size
from gpuzip.sizes import size_table

_ROWS = 1000  # of a matrix whose sizes are shown


def info(source: str, name: str | None, as_json: bool) -> None:
    """Show what one file holds."""
    out = Output(as_json)
    if sources.is_dataset(source):
        _dataset(source, out)
    elif sources.is_matrix(source):
        _sizes(source, name, out)
    elif source != "-" and Path(source).is_dir():
        _folder(source, out)
    else:
        found = gpuzip.info(sys.stdin.buffer.read() if source == "-" else source)
        out.show(json_of(found), facts(str(found.path), facts_of(found)))


def facts_of(found: gpuzip.FileInfo) -> dict[str, str | None]:
    """The header as lines."""
    quality = found.quality
    return {
        "rows": rows_of((found.n, found.d), found.dtype),
        "codec": _codec(found),
        "original": f"{found.source_nbytes:,} bytes",
        "compressed": f"{found.nbytes:,} bytes, {found.ratio:.2f}x smaller"
        if found.n
        else size(found.nbytes),
        "cosine": None if quality is None else f"{quality.cosine:.4f}; mean of rows {quality.row_cosine:.4f}",
        "held out": None if found.held_out is None else str(found.held_out),
        "advice": found.advice,
        "format": f"{found.format}, written by gpuzip {found.library}",
    }


def json_of(found: gpuzip.FileInfo) -> dict[str, Any]:
    """The header for JSON."""
    return {
        "path": str(found.path),
        "n": found.n,
        "d": found.d,
        "dtype": str(found.dtype).removeprefix("torch."),
        "codec": found.codec,
        "spec": _codec(found),
        "original_nbytes": found.source_nbytes,
        "nbytes": found.nbytes,
        "ratio": found.ratio,
        "quality": None if found.quality is None else asdict(found.quality),
        "held_out": None if found.held_out is None else asdict(found.held_out),
        "format": found.format,
        "library": found.library,
    }


def _codec(found: gpuzip.FileInfo) -> str:
    """The settings as `--codec` takes them, or the id where no text stands for them."""
    try:
        return gpuzip.load_codec(found.path).spec
    except (gpuzip.GpuzipError, OSError):
        return found.codec


def _dataset(source: str, out: Output) -> None:
    data = gpuzip.Dataset.open(source)
    found, spec = data.info(), data.codec.spec
    some = {
        "rows": rows_of((found.n, found.d), found.dtype),
        "codec": spec,
        "ids": found.ids or "numbered",
        "columns": ", ".join(found.columns) or None,
        "compressed": f"{found.nbytes:,} bytes, {found.ratio:.2f}x smaller",
        "shards": f"{found.shards:,}, with {found.removed:,} removed rows",
        "held out": None if data.codec.held_out is None else str(data.codec.held_out),
    }
    out.show(asdict(found) | {"path": source, "spec": spec}, facts(source, some))


def _folder(source: str, out: Output) -> None:
    codes = sources.codes(source)
    nbytes = sum(file.stat().st_size for file in Path(source).iterdir())
    parts = getattr(codes, "parts", [codes])
    some = {
        "rows": rows_of(codes.shape, codes.dtype),
        "codecs": ", ".join(f"{part.codec.spec} for {len(part):,} rows" for part in parts),
        "compressed": f"{nbytes:,} bytes, {codes.ratio:.2f}x smaller by codes alone",
    }
    listed = [{"spec": part.codec.spec, "n": len(part)} for part in parts]
    n, d = codes.shape
    out.show({"path": source, "n": n, "d": d, "nbytes": nbytes, "parts": listed}, facts(source, some))


def _sizes(source: str, name: str | None, out: Output) -> None:
    """What a matrix takes as lists, as floats, as bytes and as bits."""
    x = sources.matrix(source, name)
    n, d = (int(side) for side in x.shape)
    some = x[:_ROWS]
    shown: list[dict[str, Any]] = []
    if min(some.shape):
        codecs = {"1 byte": gpuzip.ScalarQuantizer(), "1 bit": gpuzip.BinaryQuantizer()}
        codes = (
            {kind: codec.fit(some).encode(some) for kind, codec in codecs.items()} if len(some) > 1 else {}
        )
        for row in size_table(tuple(some.shape), codes) if codes else []:
            per_row = row.values + (row.overhead if "lists" in row.name else 0)
            shown.append({"form": row.name, "nbytes": round(per_row / len(some)) * n})
    heads = ["as", "bytes", "smaller than float32"]
    lines = [
        heads,
        *([row["form"], f"{row['nbytes']:,}", f"{4 * n * d / row['nbytes']:.2f}x"] for row in shown),
    ]
    text = facts(source, {"rows": rows_of((n, d), x.dtype)})
    table = "\n".join(f"  {line}".rstrip() for line in text_table(lines))
    out.show({"path": source, "n": n, "d": d, "dtype": str(x.dtype), "sizes": shown}, f"{text}\n\n{table}")


def verify(names: list[str], min_cosine: float | None, source: str | None, as_json: bool) -> None:
    """Verify each file; those after one that is damaged too."""
    if source is not None and len(names) > 1:
        raise CommandError("verify: one file must be given with --source; got several.", Exit.USAGE)
    results = [_verified(name, min_cosine, source) for name in names]
    text = "\n".join(f"{one['path']}: {one['state']}" for one in results)
    Output(as_json).show({"files": results}, text)
    worst = max((Exit(one["exit_code"]) for one in results), default=Exit.OK)
    if worst != Exit.OK:
        bad = sum(one["exit_code"] != Exit.OK for one in results)
        raise CommandError(
            f"verify: {bad} of {len(results)} files failed. Restore them, or make them again.", worst
        )


def _verified(name: str, min_cosine: float | None, source: str | None) -> dict[str, Any]:
    try:
        if sources.is_dataset(name):
            return _verified_dataset(name, min_cosine, source)
        codes = sources.codes(name, verify=True, min_cosine=min_cosine)
        result: dict[str, Any] = {"path": name, "exit_code": int(Exit.OK), "n": len(codes)}
        if source is None:
            return result | {"state": f"ok, {len(codes):,} rows"}
        quality = codes.quality(sources.matrix(source))
    except (gpuzip.GpuzipError, OSError) as error:
        text, code = described(error)
        return {"path": name, "exit_code": int(code), "state": text.removeprefix(f"{name}: ")}
    measured = None if quality is None else asdict(quality)
    shown = "" if quality is None else f", cosine {quality.cosine:.4f}, mean of rows {quality.row_cosine:.4f}"
    if quality is not None and min_cosine is not None and quality.row_cosine < min_cosine:
        return result | {
            "exit_code": int(Exit.NOT_MET),
            "quality": measured,
            "state": f"too far from {source}{shown}",
        }
    return result | {"quality": measured, "state": f"ok, {len(codes):,} rows{shown}"}


def _verified_dataset(name: str, min_cosine: float | None, source: str | None) -> dict[str, Any]:
    if min_cosine is not None or source is not None:
        raise gpuzip.GpuzipError(
            f"{name}: must be a file for --min-cosine and --source; it is a dataset. Leave them out."
        )
    data = gpuzip.Dataset.open(name)
    data.verify()
    return {"path": name, "exit_code": int(Exit.OK), "n": len(data), "state": f"ok, {len(data):,} rows"}
