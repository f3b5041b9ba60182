"""How small and how good: files beside embzip's, codes and search beside FAISS's.

    python -m bench.quality

Writes bench/results/quality.csv, where `change` is in percent for bytes and errors and a difference for
cosine and recall, and `target` bounds it. The exit status is 1 when a target is missed.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

import gpuzip
from bench.agree import cosine
from bench.data import sample
from bench.measure import is_quick
from bench.peers import EMBZIP_README, embzip_load, embzip_save, faiss_pq
from bench.record import main
from gpuzip import ProductQuantizer

#: For each m: how many percent fewer bytes a file must have than embzip's.
FEWER_BYTES = {64: 19.0, 128: 12.0, 384: 4.5}
#: How far below embzip's the cosine may be.
COSINE_SLACK = 0.002

_SEEDS = 5


def _row(
    measure: str, about: dict[str, Any], peer: str, sides: tuple[float, float], target: float | None = None
) -> dict[str, Any]:
    """target: the most that bytes may change, and the least that a cosine may."""
    ours, theirs = sides
    change = ours - theirs if measure in ("cosine", "recall@10") else 100 * (ours / theirs - 1)
    ok = None if target is None else change >= target if measure == "cosine" else change <= target
    row = {"measure": measure, **about, "peer": peer, "gpuzip": ours, "theirs": theirs}
    return row | {"change": change, "target": target, "ok": ok}


def file_rows() -> Iterator[dict[str, Any]]:
    """Sizes and cosines of the files of 1,000 vectors at nbits=4."""
    x = sample().embeddings[:1000].contiguous()
    for m, percent in FEWER_BYTES.items():
        with tempfile.TemporaryDirectory() as folder:
            path, other = Path(folder, "ours.ezip"), Path(folder, "embzip")
            size = gpuzip.save(x, path, m=m, nbits=4).nbytes
            # Polysemous training orders the centroids in another way: the same error, a slightly larger file.
            embzip_save(x, other, m, polysemous=False)
            cosines = cosine(x, gpuzip.load(path)), cosine(x, embzip_load(other))
            their_size = other.stat().st_size
        about = {"m": m, "nbits": 4, "rows": len(x), "seeds": 1}
        yield _row("file bytes", about, "embzip", (size, their_size), -percent)
        yield _row("file bytes", about, "embzip's README", (size, EMBZIP_README[m]), -percent)
        yield _row("cosine", about, "embzip", cosines, -COSINE_SLACK)


def code_rows(seeds: range) -> Iterator[dict[str, Any]]:
    """Error and recall@10 of codes of the whole sample, each side from its own starts: means over seeds."""
    x, queries = sample().embeddings, sample().queries
    truth = (queries @ x.T).topk(10).indices
    for m, nbits in ((48, 8), (96, 4)):
        about = {"m": m, "nbits": nbits, "rows": len(x), "seeds": len(seeds)}
        codecs = [_ours(x, m, nbits, seed) for seed in seeds], [_theirs(x, m, nbits, seed) for seed in seeds]
        finds: tuple[Callable[..., Tensor], ...] = (
            lambda codes: codes.search(queries, 10, "ip")[1],
            lambda codes: torch.from_numpy(gpuzip.to_faiss(codes, "ip").search(queries.numpy(), 10)[1]),
        )
        ours, theirs = (fmean(_objective(codec, x) for codec in some) for some in codecs)
        yield _row("k-means objective", about, "FAISS", (ours, theirs))
        ours, theirs = (
            fmean(gpuzip.recall(find(codec.encode(x)), truth) for codec in some)
            for some, find in zip(codecs, finds, strict=True)
        )
        yield _row("recall@10", about, "FAISS", (ours, theirs))


def _ours(x: Tensor, m: int, nbits: int, seed: int) -> ProductQuantizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # 31 rows a centroid, where 39 are recommended
        return ProductQuantizer(m=m, nbits=nbits).fit(x, seed=seed)


def _theirs(x: Tensor, m: int, nbits: int, seed: int) -> ProductQuantizer:
    codec = gpuzip.from_faiss(faiss_pq(x.numpy(), m, nbits, seed))
    assert isinstance(codec, ProductQuantizer)
    return codec


def _objective(codec: ProductQuantizer, x: Tensor) -> float:
    """Sum of squared errors over all rows and columns."""
    return float((codec.encode(x).decode() - x).double().square().sum())


def measure(few: int | None) -> Iterator[dict[str, Any]]:
    yield from file_rows()
    yield from code_rows(range(1 if is_quick() else _SEEDS))


if __name__ == "__main__":
    sys.exit(main("quality", __doc__, measure, few=False))
