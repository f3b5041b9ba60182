"""How small and how good: files beside embzip's, codes and search beside FAISS's.

    python -m bench.quality

Writes bench/results/quality.csv, where `change` is in percent for bytes and errors and a difference for
cosine and recall, and `target` bounds it. The exit status is 1 when a target is missed.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

import gpuzip
from bench.agree import cosine
from bench.data import sample
from bench.measure import is_quick
from bench.peers import EMBZIP_README, embzip_load, embzip_save, faiss_pq, same_threads
from bench.record import finish
from gpuzip import ProductQuantizer

#: For each m: how many percent fewer bytes a file must have than embzip's.
FEWER_BYTES = {64: 19.0, 128: 12.0, 384: 4.5}
#: How far below embzip's the cosine may be.
COSINE_SLACK = 0.002

_SEEDS = 5


def file_rows() -> Iterator[dict[str, Any]]:
    """Sizes and cosines of the files of 1,000 vectors at nbits=4."""
    x = sample().embeddings[:1000].contiguous()
    for m, percent in FEWER_BYTES.items():
        size, embzip_size, ours, theirs = _files(x, m)
        setting = {"m": m, "nbits": 4, "rows": len(x), "seeds": 1}
        for peer, other in (("embzip", embzip_size), ("embzip's README", EMBZIP_README[m])):
            change = 100 * (size / other - 1)
            row = {"measure": "file bytes", **setting, "peer": peer, "gpuzip": size, "theirs": other}
            yield row | {"change": change, "target": -percent, "ok": change <= -percent}
        row = {"measure": "cosine", **setting, "peer": "embzip", "gpuzip": ours, "theirs": theirs}
        change = ours - theirs
        yield row | {"change": change, "target": -COSINE_SLACK, "ok": change >= -COSINE_SLACK}


def _files(x: Tensor, m: int) -> tuple[int, int, float, float]:
    """Bytes of gpuzip's and of embzip's file, cosine of gpuzip's and of embzip's."""
    with tempfile.TemporaryDirectory() as folder:
        path, other = Path(folder, "ours.ezip"), Path(folder, "embzip")
        size = gpuzip.save(x, path, m=m, nbits=4).nbytes
        # Polysemous training orders the centroids in another way: the same error, a slightly larger file.
        embzip_save(x, other, m, polysemous=False)
        cosines = cosine(x, gpuzip.load(path)), cosine(x, embzip_load(other))
        return size, other.stat().st_size, *cosines


def code_rows(seeds: range) -> Iterator[dict[str, Any]]:
    """Error and recall@10 of codes of the whole sample, each side from its own starts: means over seeds."""
    x = sample().embeddings
    for m, nbits in ((48, 8), (96, 4)):
        setting = {"m": m, "nbits": nbits, "rows": len(x), "seeds": len(seeds), "peer": "FAISS"}
        mine = [_ours(x, m, nbits, seed) for seed in seeds]
        others = [_theirs(x, m, nbits, seed) for seed in seeds]
        ours, theirs = (fmean(_objective(codec, x) for codec in codecs) for codecs in (mine, others))
        row = {"measure": "k-means objective", **setting, "gpuzip": ours, "theirs": theirs}
        yield row | {"change": 100 * (ours / theirs - 1), "target": None, "ok": None}
        ours = fmean(_recall(codec, x) for codec in mine)
        theirs = fmean(_faiss_recall(codec, x) for codec in others)
        row = {"measure": "recall@10", **setting, "gpuzip": ours, "theirs": theirs}
        yield row | {"change": ours - theirs, "target": None, "ok": None}


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


def _truth(x: Tensor) -> Tensor:
    """The ten rows of greatest inner product with each query."""
    return (sample().queries @ x.T).topk(10).indices


def _recall(codec: ProductQuantizer, x: Tensor) -> float:
    return gpuzip.recall(codec.encode(x).search(sample().queries, 10, "ip")[1], _truth(x))


def _faiss_recall(codec: ProductQuantizer, x: Tensor) -> float:
    ids = gpuzip.to_faiss(codec.encode(x), "ip").search(sample().queries.numpy(), 10)[1]
    return gpuzip.recall(torch.from_numpy(ids), _truth(x))


def main() -> int:
    same_threads()
    seeds = range(1 if is_quick() else _SEEDS)
    heads = "measure | codec | beside | gpuzip | theirs | change | target | "
    cells = (
        "{measure} | m={m} nbits={nbits} | {peer} | {gpuzip:,.6g} | {theirs:,.6g} | {change:+.4g} | "
        "{target:+.4g} | {ok:ok}"
    )
    return finish("quality", [*file_rows(), *code_rows(seeds)], heads, cells, title="Size and quality")


if __name__ == "__main__":
    sys.exit(main())
