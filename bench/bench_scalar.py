"""Scalar and binary codes beside FAISS, USearch and sentence-transformers.

Run it by: pytest bench --benchmark-only -k scalar

Every case first asserts that both sides agree as far as their roundings let them, then times them in turns.
"""

from __future__ import annotations

from functools import cache

import faiss
import numpy as np
import pytest
import torch
from sentence_transformers.util.quantization import quantize_embeddings
from torch import Tensor
from usearch.index import MetricKind, search

import gpuzip
from bench import agree
from bench.conftest import Compare
from bench.data import MOST_ROWS, D, made, made_blocks, sample
from bench.measure import Call, affordable
from gpuzip import BinaryQuantizer, Codes, ScalarQuantizer

_ROWS = 100_000


@cache
def _rows() -> Tensor:
    return made(_ROWS)


@cache
def _codes() -> Codes:
    codec = ScalarQuantizer(steps=255).fit(_rows())
    return gpuzip.cat([codec.encode(block) for block in made_blocks(MOST_ROWS)])


@cache
def _int8() -> np.ndarray:
    """As USearch stores rows of length 1."""
    return np.concatenate([(block.numpy() * 127).astype(np.int8) for block in made_blocks(MOST_ROWS)])


@pytest.mark.benchmark(group="scalar encode")
def test_scalar_encode(compare: Compare) -> None:
    x, codec = _rows(), _codes().codec
    array = x.numpy()
    quantizer = faiss.ScalarQuantizer(D, faiss.ScalarQuantizer.QT_8bit)
    quantizer.train(array)
    ranges = np.stack([array.min(0), array.max(0)])
    ours = codec.encode(x).data.numpy()
    assert np.array_equal(ours, quantize_embeddings(array, "uint8", ranges=ranges))
    assert (ours != quantizer.compute_codes(array)).mean() < 1e-3
    peers: dict[str, Call] = {
        "sentence-transformers": lambda: quantize_embeddings(array, "uint8", ranges=ranges),
        "FAISS": lambda: quantizer.compute_codes(array),
    }
    compare(lambda: codec.encode(x), peers, {}, rows=_ROWS, m=None, nbits=8)


@pytest.mark.benchmark(group="binary encode")
def test_scalar_binary_encode(compare: Compare) -> None:
    x, codec = _rows(), BinaryQuantizer().fit(_rows())
    array = x.numpy()
    assert np.array_equal(codec.encode(x).data.numpy(), quantize_embeddings(array, "ubinary"))
    peers: dict[str, Call] = {"sentence-transformers": lambda: quantize_embeddings(array, "ubinary")}
    compare(lambda: codec.encode(x), peers, {}, rows=_ROWS, m=None, nbits=1)


@pytest.mark.benchmark(group="int8 search")
@pytest.mark.parametrize("q", [1, 16, 256])
@pytest.mark.parametrize("n", sorted({100_000, MOST_ROWS}))
def test_scalar_search(compare: Compare, n: int, q: int) -> None:
    codes, queries = _codes()[:n], sample().queries[:q].contiguous()
    asked = queries.numpy()
    index = gpuzip.to_faiss(codes, "ip")

    def ours() -> tuple[Tensor, Tensor]:
        return codes.search(queries, 10, "ip")

    def theirs(count: int = q) -> agree.Found:
        values, ids = index.search(asked[:count], 10)
        return values, ids

    values, ids = (found.numpy() for found in ours())
    few = min(q, 16)
    agree.same_neighbours((values[:few], ids[:few]), theirs(few), tolerance=1e-5)
    peers: dict[str, Call] = {}
    about = affordable(peers, "FAISS IndexScalarQuantizer", theirs, q)
    small, few_bytes = _int8()[:n], (asked * 127).astype(np.int8)

    def usearch(count: int = q) -> object:
        threads = torch.get_num_threads()
        return search(small, few_bytes[:count], 10, MetricKind.IP, exact=True, threads=threads)

    about |= affordable(peers, "USearch i8, exact", usearch, q)
    if n == _ROWS:  # a million rows of float32 and their scores take gigabytes
        rows = codes.decode()
        peers["torch, float32"] = lambda: torch.topk(queries @ rows.T, 10)
    compare(ours, peers, about, rows=n, m=None, nbits=8, queries=q)
