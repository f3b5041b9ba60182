"""Rows rotated by a matrix product, beside FAISS's and beside a fast Walsh-Hadamard transform in torch.

    python -m bench.rotations [--rows 2000]

The product is why a rotation has no kernel of its own. Writes bench/results/rotations.csv, unless on fewer
rows; the exit status is 1 when two sides' rows differ by more than float32 does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import torch

from bench.measure import Call, in_turns
from bench.record import main
from gpuzip import Rotation
from gpuzip.rotations.drawn import hadamard

#: Rows, by columns: as many as a block that is encoded, and ten of them.
ROWS = {384: 100_000, 1024: 40_000}

_ROUNDS, _TOLERANCE = 9, 1e-4


def measured(d: int, n: int) -> Iterator[dict[str, Any]]:
    """A row for each peer of each kind of rotation."""
    x = torch.nn.functional.normalize(torch.randn((n, d), generator=torch.Generator().manual_seed(d)))
    pca, signs = Rotation("pca").fit(x[:4096]), Rotation("hadamard").fit(x)
    drawn, random = signs.state()["signs"].bool(), faiss.HadamardRotation(d)
    product = faiss.LinearTransform(pca.matrix.shape[1], len(pca.matrix), False)
    faiss.copy_array_to_vector(np.ascontiguousarray(pca.matrix.numpy()).ravel(), product.A)
    product.is_trained = True
    peers: list[tuple[str, str, Call]] = [
        ("pca", "FAISS LinearTransform", lambda: product.apply_py(x.numpy())),
        ("pca", "torch, float32", lambda: x @ pca.matrix.T),
        ("hadamard", "fast transform in torch", lambda: hadamard(x, drawn)),
        ("hadamard", "FAISS HadamardRotation", lambda: random.apply_py(x.numpy())),
    ]
    for kind, peer, theirs in peers:
        rotation = {"pca": pca, "hadamard": signs}[kind]
        error = None  # FAISS draws other signs
        if peer != "FAISS HadamardRotation":
            error = float((rotation.apply(x) - torch.as_tensor(theirs())).abs().max())
        took = in_turns({peer: theirs, "gpuzip": lambda: rotation.apply(x)}, _ROUNDS)  # noqa: B023
        about: dict[str, Any] = {"kind": kind, "rows": n, "d": d, "peer": peer} | took["gpuzip"].beside(
            took[peer]
        )
        ok = error is None or error <= _TOLERANCE
        yield about | {"rows_per_second": n / about["seconds"], "difference": error, "ok": ok}


def measure(few: int | None) -> Iterator[dict[str, Any]]:
    for d, n in ROWS.items():
        yield from measured(d, few or n)


if __name__ == "__main__":
    sys.exit(main("rotations", __doc__, measure))
