"""Scores of packed bits: the negative Hamming distance."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip.ops import hamming_gather, hamming_scan
from gpuzip.ops.few import hamming_few
from gpuzip.ops.hamming import ABSENT
from gpuzip.ops.one_pass import hamming_topk
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import Prepared
from gpuzip.search.scorer import ALL, Attempted
from gpuzip.search.scorers.common import proven


class HammingScorer:
    """Exact scorer, as float32 holds distances below 2**24. data: (N, B), queries: (Q, B), uint8."""

    is_exact = True
    gather_cost = 1

    def __init__(self, data: Tensor, queries: Tensor, mask: Tensor | None = None) -> None:
        self._data, self._queries, self._mask = data, queries, mask
        self.N, self.Q = len(data), len(queries)

    def group_max(self, group: int) -> Tensor:
        return self._scores(hamming_scan(self._queries, self._data, self._mask, group))

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        return self._scores(hamming_gather(self._queries[queries], self._data, self._mask, ids))

    def exact(self, queries: Tensor | None = None) -> HammingScorer:
        return self if queries is None else HammingScorer(self._data, self._queries[queries], self._mask)

    def one_pass(self, k: int) -> Attempted | None:
        return proven(hamming_topk(self._queries, self._data, k, self._mask))

    def _scores(self, distances: Tensor) -> Tensor:
        scores = distances.float().neg_()
        return scores if self._mask is None else scores.masked_fill_(distances == ABSENT, float("-inf"))


def prepared_hamming(packed: Packed, codes: Tensor) -> Prepared | None:
    """What `HammingScorer` finds for few queries without a mask, of codes that were searched.

    codes: (N, B) uint8, those that are compared; queries are (Q, B) uint8.
    """
    packed.turned([codes])  # which remembers codes that it sees first
    few = hamming_few(codes, packed.turned([codes]))
    return None if few is None else Prepared(few, [codes], len(codes), codes.shape[1], torch.uint8, True)
