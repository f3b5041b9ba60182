"""What gpuzip is measured against: FAISS, USearch, and embzip's way to use FAISS."""

from __future__ import annotations

import lzma
import os
import pickle
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
from torch import Tensor
from usearch.index import MetricKind, search

from bench.agree import Found

#: embzip's own figures for 1,000 MiniLM embeddings at nbits=4: bytes of the file for each m.
#: Source: "Benchmarks" in the README of github.com/jxmorris12/embzip. Its texts are others than ours.
EMBZIP_README = {64: 56_372, 128: 87_920, 384: 216_112}


def same_threads() -> int:
    """Give FAISS as many threads as torch has; their number."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    assert faiss.omp_get_max_threads() == torch.get_num_threads()
    return torch.get_num_threads()


def sentence_transformers_quantize() -> Callable[..., Any]:
    """Its `quantize_embeddings`, imported here, since that takes seconds."""
    from sentence_transformers.util.quantization import quantize_embeddings

    quantize: Callable[..., Any] = quantize_embeddings
    return quantize


def faiss_pq(x: np.ndarray, m: int, nbits: int, seed: int = 1234) -> Any:
    """A trained faiss.ProductQuantizer. seed: FAISS's default."""
    pq = faiss.ProductQuantizer(x.shape[1], m, nbits)
    pq.cp.seed = seed
    pq.cp.min_points_per_centroid = 1  # no warning for each sub-space
    pq.train(x)
    return pq


def usearch_exact(
    rows: np.ndarray, queries: np.ndarray, metric: MetricKind, count: int, k: int = 10
) -> Found:
    """USearch's exact search for the k nearest rows of the first `count` queries."""
    found = search(rows, queries[:count], k, metric, exact=True, threads=torch.get_num_threads())
    return np.atleast_2d(found.distances), np.atleast_2d(found.keys)


def embzip_save(
    x: Tensor, path: str | os.PathLike[str], m: int, nbits: int = 4, *, polysemous: bool = True
) -> None:
    """Write the file that embzip.save writes, in the way it does.

    polysemous: its factory string asks for polysemous training, which changes the order of the
    centroids and takes nearly all of the time; False appends the suffix that turns this off ("fast
    training" in the tables), for the same error and a slightly smaller file.
    Source: `save` in embzip/core.py of github.com/jxmorris12/embzip, commit ebeda18.
    """
    suffix = "" if polysemous else "np"
    index: Any = faiss.index_factory(x.shape[1], f"IDMap2,PQ{m}x{nbits}{suffix}", faiss.METRIC_INNER_PRODUCT)
    index.train(x.numpy())
    index.add_with_ids(x.numpy(), np.arange(len(x)))
    codes = index.index.sa_encode(x.numpy())
    with lzma.open(path, "wb") as file:
        pickle.dump({"codes": codes, "index": index, "shape": x.shape, "m": m, "nbits": nbits}, file)


def embzip_load(path: str | os.PathLike[str]) -> Tensor:
    """The rows of a file of `embzip_save`. Source: `load` in the same file."""
    with lzma.open(path, "rb") as file:
        data = pickle.load(file)
    return torch.from_numpy(data["index"].index.sa_decode(data["codes"]))
