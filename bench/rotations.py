"""Rows rotated by a matrix product, beside FAISS's and beside a fast Walsh-Hadamard transform in torch.

    python -m bench.rotations [--rows 2000]

The product is why a rotation has no kernel of its own. Writes bench/results/rotations.csv, unless on fewer
rows; the exit status is 1 when two sides' rows differ by more than float32 does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from statistics import median
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor

from bench.measure import Call, peak_bytes, seconds
from bench.peers import same_threads
from bench.record import finish
from gpuzip import Rotation
from gpuzip.rotations.drawn import hadamard

#: Rows, by columns: as many as a block that is encoded, and ten of them.
ROWS = {384: 100_000, 1024: 40_000}

_ROUNDS, _TOLERANCE = 9, 1e-4


def measured(d: int, n: int) -> Iterator[dict[str, Any]]:
    """A row for each peer of each kind of rotation."""
    x = torch.nn.functional.normalize(torch.randn((n, d), generator=torch.Generator().manual_seed(d)))
    pca, signs = Rotation("pca").fit(x[:4096]), Rotation("hadamard").fit(x)
    drawn = signs.state()["signs"].bool()
    yield _raced("pca", x, lambda: pca.apply(x), "FAISS LinearTransform", _faiss_product(pca.matrix, x))
    yield _raced("pca", x, lambda: pca.apply(x), "torch, float32", lambda: x @ pca.matrix.T)
    fast = "fast transform in torch"
    yield _raced("hadamard", x, lambda: signs.apply(x), fast, lambda: hadamard(x, drawn))
    theirs = faiss.HadamardRotation(d)
    yield _raced(
        "hadamard",
        x,
        lambda: signs.apply(x),
        "FAISS HadamardRotation",
        lambda: theirs.apply_py(x.numpy()),
        None,
    )


def _faiss_product(matrix: Tensor, x: Tensor) -> Call:
    transform = faiss.LinearTransform(matrix.shape[1], len(matrix), False)
    faiss.copy_array_to_vector(np.ascontiguousarray(matrix.numpy()).ravel(), transform.A)
    transform.is_trained = True
    return lambda: transform.apply_py(x.numpy())


def _raced(
    kind: str, x: Tensor, ours: Call, peer: str, theirs: Call, tolerance: float | None = _TOLERANCE
) -> dict[str, Any]:
    """tolerance: of the largest difference of their rows to ours; None where theirs are drawn otherwise."""
    error = float((ours() - torch.as_tensor(theirs())).abs().max()) if tolerance is not None else None
    peaks = [peak_bytes(call) for call in (ours, theirs)]
    times = [[seconds(call) for call in (ours, theirs)] for _ in range(_ROUNDS)]
    mine, others = (median(took) for took in zip(*times, strict=True))
    return {
        "kind": kind,
        "rows": len(x),
        "d": x.shape[1],
        "rounds": _ROUNDS,
        "seconds": mine,
        "peak_bytes": peaks[0],
        "rows_per_second": len(x) / mine,
        "peer": peer,
        "peer_seconds": others,
        "peer_peak_bytes": peaks[1],
        "ratio": others / mine,
        "difference": error,
        "ok": error is None or error <= (tolerance or 0),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.rotations", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--rows", type=int, help="of each width; writes nothing")
    few = parser.parse_args().rows
    same_threads()
    found = [row for d, n in ROWS.items() for row in measured(d, few or n)]
    heads = "case | beside | gpuzip | theirs | ratio | "
    cells = "{kind}, {rows:,} x {d} | {peer} | {seconds:s} | {peer_seconds:s} | {ratio:x} | {ok:ok}"
    return finish("rotations", found, heads, cells, title="Rotations", whole=few is None)


if __name__ == "__main__":
    sys.exit(main())
