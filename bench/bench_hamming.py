"""Hamming search of packed bits beside FAISS: pytest bench --benchmark-only -k hamming.

Every case first asserts that both sides give the same distances, then times them in turns.
"""

from __future__ import annotations

from functools import cache

import faiss
import numpy as np
import pytest
import torch
from torch import Tensor

from bench import agree
from bench.conftest import Compare
from bench.data import D, made_blocks, sample
from gpuzip.ops import hamming_gather, hamming_scan
from gpuzip.search import best

_MOST_ROWS = 1_000_000


class _Scorer:
    """Hamming distances as keys of an exact search: fewer bits are better."""

    is_exact = True

    def __init__(self, queries: Tensor, codes: Tensor) -> None:
        self._queries, self._codes = queries, codes
        self.Q, self.N = len(queries), len(codes)

    def group_max(self, group: int) -> Tensor:
        return -hamming_scan(self._queries, self._codes, group=group).float()

    def gather(self, ids: Tensor) -> Tensor:
        return -hamming_gather(self._queries, self._codes, None, ids).float()

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def exact(self, queries: Tensor) -> _Scorer:
        return _Scorer(self._queries[queries], self._codes)


def _bits(x: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(x.numpy() > 0, axis=1))


@cache
def _codes() -> Tensor:
    return torch.cat([_bits(block) for block in made_blocks(_MOST_ROWS)])


@pytest.mark.benchmark(group="hamming")
@pytest.mark.parametrize("q", [1, 16, 256])
@pytest.mark.parametrize("n", [100_000, _MOST_ROWS])
def test_hamming(compare: Compare, n: int, q: int) -> None:
    codes, queries = _codes()[:n], _bits(sample().queries[:q])
    index = faiss.IndexBinaryFlat(D)
    index.add(codes.numpy())

    def ours() -> agree.Found:
        keys, ids = best(_Scorer(queries, codes), 10)
        return (-keys).numpy(), ids.numpy()

    def theirs() -> agree.Found:
        values, ids = index.search(queries.numpy(), 10)
        return values, ids

    agree.same_neighbours(ours(), theirs(), tolerance=0)
    compare(ours, {"FAISS IndexBinaryFlat": theirs}, {}, rows=n, m=None, nbits=D, queries=q)
