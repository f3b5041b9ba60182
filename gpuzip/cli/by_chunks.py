"""When `gpuzip compress` reads chunk by chunk, and what it says then."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import gpuzip
from gpuzip.choose.by_bytes import parse_bytes
from gpuzip.cli.output import rows_of
from gpuzip.interop.matrices.formats import find_matrix, is_matrix_file

_SHARE = 2  # of the computer's memory, which share rows may take that are read at once


def needed(source: str, target: str, name: str | None, format: str | None, max_memory: str | None) -> bool:
    """Whether OUT is a dataset, or IN a folder or larger than memory allows."""
    if target.endswith(("/", os.sep)) or Path(target).is_dir() or Path(source).is_dir():
        return True
    can_be = target.endswith(".ezip") and Path(source).is_file() and (format or is_matrix_file(source))
    if not can_be:
        return False
    found = find_matrix(source, name=name, format=format, who="compress")
    size = 2 if found.dtype == "bfloat16" else np.dtype(found.dtype).itemsize
    most = _memory() if max_memory is None else parse_bytes("compress", "max_memory", max_memory)
    return found.shape[0] * found.shape[1] * size > most


def _memory() -> float:
    """Bytes that rows may take; no bound where the system does not tell its memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _SHARE
    except (AttributeError, OSError, ValueError):
        return float("inf")


def facts_of(done: gpuzip.Compressed) -> dict[str, str | None]:
    """The result as lines."""
    shares = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in done.seconds.items())
    return {
        "rows": rows_of((done.n, done.d), done.dtype),
        "codec": done.codec.spec,
        "compressed": f"{done.nbytes:,} bytes, {done.ratio:.2f}x smaller",
        "held out": None if done.held_out is None else str(done.held_out),
        "resumed": f"after {done.resumed:,} rows" if done.resumed else None,
        "time": shares,
    }


def json_of(done: gpuzip.Compressed) -> dict[str, Any]:
    """The result for JSON."""
    return {
        "path": str(done.path),
        "n": done.n,
        "d": done.d,
        "dtype": str(done.dtype).removeprefix("torch."),
        "spec": done.codec.spec,
        "nbytes": done.nbytes,
        "ratio": done.ratio,
        "held_out": None if done.held_out is None else asdict(done.held_out),
        "resumed": done.resumed,
        "parts": done.seconds,
    }
