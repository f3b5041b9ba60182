"""`gpuzip search`."""

from __future__ import annotations

import sys
from typing import Any

import gpuzip
from gpuzip.cli import sources
from gpuzip.cli.failure import CommandError, Exit
from gpuzip.cli.output import Output

_AT_ONCE = 1000  # queries per piece of text


def run(
    source: str,
    queries: str,
    k: int,
    metric: Any,
    rescore: str | None,
    multiplier: float,
    candidates: str | None,
    target: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Search, and print or write what was found."""
    if source == queries == "-":
        raise CommandError("search: one of FILE and QUERIES may be -; got both. Name a file.", Exit.USAGE)
    out = Output(as_json)
    options: dict[str, Any] = {}
    if rescore is not None:
        options = {"rescore": _store(rescore, device), "rescore_multiplier": multiplier}
    elif candidates is not None:
        raise CommandError("search: --candidates must be given with --rescore. Name the source.", Exit.USAGE)
    asked = sources.matrix(queries, device=device)
    if sources.is_dataset(source):
        if candidates is not None:
            raise CommandError("search: --candidates must be given with a file. Omit it.", Exit.USAGE)
        found: Any = gpuzip.Dataset.open(source).search(asked, k, metric, device=device, **options)
    else:
        options |= {"candidates": candidates} if rescore is not None else {}
        found = sources.codes(source).to(device).search(asked, k, metric, progress=out.progress, **options)
    if target is not None:
        _write(target, found)
        n = len(found.ids)
        out.show({"path": target, "queries": n, "k": found.ids.shape[1]}, f"{target}: {n:,} queries")
    elif as_json:
        out.show({"metric": metric, "ids": found.ids.tolist(), "values": found.values.tolist()}, "")
    else:
        _print(found)


def _store(name: str, device: str) -> Any:
    return sources.matrix(name, device=device) if sources.is_matrix(name) else sources.codes(name).to(device)


def _print(found: Any) -> None:
    """A line per row that was found, with tabs between."""
    sys.stdout.write("query\trank\tid\tscore\n")
    for start in range(0, len(found.ids), _AT_ONCE):
        ids, values = (part[start : start + _AT_ONCE].tolist() for part in (found.ids, found.values))
        sys.stdout.write(
            "".join(
                f"{start + query}\t{rank}\t{id}\t{value:.6g}\n"
                for query, row in enumerate(zip(ids, values, strict=True))
                for rank, (id, value) in enumerate(zip(*row, strict=True), 1)
            )
        )


def _write(target: str, found: Any) -> None:
    """An npz with `ids` and `values`. Ids that are text are arrays of it, not of objects."""
    import numpy as np

    from gpuzip.storage.atomic import replacing
    from gpuzip.storage.paths import local_path

    with replacing(local_path("search", target)) as fresh, open(fresh, "wb") as file:
        ids = found.ids.astype(str) if isinstance(found.ids, np.ndarray) else found.ids.cpu().numpy()
        np.savez(file, ids=ids, values=found.values.cpu().numpy())
