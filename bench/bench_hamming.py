"""Hamming search of packed bits beside FAISS and USearch: pytest bench --benchmark-only -k hamming.

Every case first asserts that all sides give the same distances, then times them in turns.
"""

from __future__ import annotations

from functools import cache

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor
from usearch.index import MetricKind, search

from bench import agree
from bench.conftest import Compare
from bench.data import MOST_ROWS, D, made_blocks, sample
from bench.measure import Call, affordable
from gpuzip import BinaryQuantizer, Codes, cat


@cache
def _directions(bits: int) -> Tensor:
    """Random ones to take the signs along, where bits are not dimensions."""
    return torch.randn(D, bits, generator=torch.Generator().manual_seed(bits))


def _values(x: Tensor, bits: int) -> Tensor:
    return x if bits == D else x @ _directions(bits)


@cache
def _codes(bits: int) -> Codes:
    codec = BinaryQuantizer(levels="sign").fit(_values(sample().embeddings, bits))
    return cat([codec.encode(_values(block, bits)) for block in made_blocks(MOST_ROWS)])


@pytest.mark.benchmark(group="hamming")
@pytest.mark.parametrize("q", [1, 16, 256])
@pytest.mark.parametrize("n", sorted({100_000, MOST_ROWS}))
@pytest.mark.parametrize("bits", [D, 1024])
def test_hamming(compare: Compare, bits: int, n: int, q: int) -> None:
    codes = _codes(bits)[:n]
    queries = codes.codec.encode(_values(sample().queries[:q], bits)).data
    rows, asked = codes.data.numpy(), queries.numpy()
    index = faiss.IndexBinaryFlat(bits)
    index.add(rows)

    def ours() -> agree.Found:
        distances, ids = codes.search(queries, 10, "hamming")
        return distances.numpy(), ids.numpy()

    def usearch(count: int = q) -> agree.Found:
        found = search(
            rows, asked[:count], 10, MetricKind.Hamming, exact=True, threads=torch.get_num_threads()
        )
        return np.atleast_2d(found.distances), np.atleast_2d(found.keys)

    theirs = index.search(asked, 10)
    agree.same_neighbours(ours(), theirs, tolerance=0)
    few = min(q, 16)
    agree.same_neighbours((ours()[0][:few], ours()[1][:few]), usearch(few), tolerance=0)
    peers: dict[str, Call] = {"FAISS IndexBinaryFlat": lambda: index.search(asked, 10)}
    about = affordable(peers, "USearch exact", usearch, q)
    compare(ours, peers, about, rows=n, m=None, nbits=bits, queries=q)
