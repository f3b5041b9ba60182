"""Rows of results/archive.csv, and the bytes of an archive's file."""

from __future__ import annotations

import io
from typing import Any

from torch import Tensor

from gpuzip import Archive

COLUMNS = (
    *("part", "data", "rows", "d", "method", "dial", "nbytes", "bits", "cosine", "max_error"),
    *("bound_bits", "gap", "peer", "peer_nbytes", "peer_cosine", "fewer", "ratio", "at_least"),
    *("loops", "workers", "encode_rate", "decode_rate", "encode_cpu_rate", "decode_cpu_rate", "peak_bytes"),
    *("ok",),
)


def result(x: Tensor, **found: Any) -> dict[str, Any]:
    """A row with every column. Raises ValueError for a column that is unknown."""
    if unknown := set(found) - set(COLUMNS):
        raise ValueError(f"columns of archive.csv must be known; got {sorted(unknown)}.")
    n, d = x.shape
    bits = {"bits": 8 * found["nbytes"] / (n * d)} if found.get("nbytes") else {}
    return dict.fromkeys(COLUMNS) | {"rows": n, "d": d} | bits | found


def saved(archive: Archive) -> bytes:
    """The whole file."""
    file = io.BytesIO()
    archive.save(file)
    return file.getvalue()
