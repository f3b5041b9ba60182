"""`gpuzip convert`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpuzip.cli import sources
from gpuzip.cli.failure import CommandError, Exit
from gpuzip.cli.output import Output, cost_line, facts, measured, rows_of, size
from gpuzip.interop import files, smallfry
from gpuzip.interop.embzip import read_embzip
from gpuzip.interop.matrices import FORMATS, read_matrix, write_matrix

_LZMA = b"\xfd7zXZ"


def run(source: str, target: str, kind: str | None, to: str | None, name: str | None, as_json: bool) -> None:
    """Read `source` as what it is, and write it as `target` says."""
    read_as, write_as = kind or _kind(source), to or _kind(target)
    for which, known, table in (("IN", read_as, _READERS), ("OUT", write_as, _WRITERS)):
        if known not in (*FORMATS, *table):
            option = "--from" if which == "IN" else "--to"
            raise CommandError(
                f"convert: the kind of {which} must be one of {', '.join((*FORMATS, *table))}; got "
                f"{known!r}. Name it by {option}.",
                Exit.USAGE,
            )
    if read_as in FORMATS and write_as not in FORMATS:
        raise CommandError(
            f"convert: {source} holds rows, which are no codes yet. Use: gpuzip compress {source} OUT.ezip"
        )
    out = Output(as_json)
    with measured() as cost:
        x = (
            read_matrix(source, name=name, format=read_as)
            if read_as in FORMATS
            else _READERS[read_as](source)
        )
        cost.rows = len(x)
        if write_as in FORMATS:
            write_matrix(target, x, format=write_as, progress=out.progress)
        else:
            _WRITERS[write_as](x, target)
        spent = cost.stop()
    nbytes = _size(Path(target))
    some = {
        "rows": rows_of(x.shape, x.dtype),
        "converted": f"{read_as} to {write_as}",
        "size": size(nbytes),
        "took": cost_line(spent),
    }
    n, d = (int(side) for side in x.shape)
    out.show(
        {"path": target, "from": read_as, "to": write_as, "n": n, "d": d, "nbytes": nbytes} | spent,
        facts(target, some),
    )


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def _kind(name: str) -> str:
    """What the suffix says; an .ezip file in LZMA is embzip's."""
    suffix = Path(name).suffix.removeprefix(".").lower()
    if suffix == "ezip" and Path(name).is_file():
        with open(name, "rb") as file:
            return "embzip" if file.read(len(_LZMA)) == _LZMA else "ezip"
    return {"index": "faiss", "sfry": "smallfry"}.get(suffix, suffix)


def _read_smallfry(source: str) -> Any:
    return smallfry.load(source).codes


def _write_ezip(codes: Any, target: str) -> None:
    codes.save(target)


_READERS: dict[str, Callable[[str], Any]] = {
    "ezip": sources.codes,
    "faiss": files.read_faiss,
    "usearch": files.read_usearch,
    "smallfry": _read_smallfry,
    "embzip": read_embzip,
}
_WRITERS: dict[str, Callable[[Any, str], None]] = {
    "ezip": _write_ezip,
    "faiss": files.write_faiss,
    "usearch": files.write_usearch,
}
