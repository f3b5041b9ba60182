"""Scores of packed bits: the negative Hamming distance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gpuzip.ops import hamming_gather, hamming_scan
from gpuzip.ops.few import Array, hamming_few, only, searched
from gpuzip.ops.hamming import ABSENT
from gpuzip.ops.one_pass import hamming_topk
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import OfCodesOrFloats, Prepared
from gpuzip.search.scorer import ALL, Attempted
from gpuzip.search.scorers.common import proven


class HammingScorer:
    """Exact scorer, as float32 holds distances below 2**24. data: (N, B), queries: (Q, B), uint8.

    turned: finds the columns of data that are kept, if any.
    """

    is_exact = True
    gather_cost = 1

    def __init__(
        self,
        data: Tensor,
        queries: Tensor,
        mask: Tensor | None = None,
        turned: Callable[[], Tensor | None] = lambda: None,
    ) -> None:
        self._data, self._queries, self._mask, self._turned = data, queries, mask, turned
        self.N, self.Q = len(data), len(queries)

    def group_max(self, group: int) -> Tensor:
        return self._scores(hamming_scan(self._queries, self._data, self._mask, group))

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        return self._scores(hamming_gather(self._queries[queries], self._data, self._mask, ids))

    def exact(self, queries: Tensor | None = None) -> HammingScorer:
        if queries is None:
            return self
        return HammingScorer(self._data, self._queries[queries], self._mask, self._turned)

    def one_pass(self, k: int) -> Attempted | None:
        few = hamming_few(self._data, self._turned()) if self._mask is None else None
        if few is not None and few.can_search(self.Q, k):
            found = searched(few, self._queries.contiguous(), self.Q, k)
            return proven(None if found is None else (found[0].float().neg_(), found[1]))
        return proven(hamming_topk(self._queries, self._data, k, self._mask))

    def _scores(self, distances: Tensor) -> Tensor:
        scores = distances.float().neg_()
        return scores if self._mask is None else scores.masked_fill_(distances == ABSENT, float("-inf"))


def prepared_hamming(
    packed: Packed, codes: Tensor, code_size: int, width: int, encode: Callable[[Array], Array]
) -> OfCodesOrFloats | None:
    """What `HammingScorer` finds for few queries without a mask, of codes that were searched.

    codes: (N, B) uint8, those that are compared, the first bytes of codes. Queries are (Q, code_size) uint8,
    or (Q, width) float32, of which `encode` makes (Q, B) uint8.
    """
    packed.turned([codes])  # which remembers codes that it sees first
    few = hamming_few(codes, packed.turned([codes]))
    if few is None:
        return None
    N, B = codes.shape
    first = None if code_size == B else lambda queries: queries[:, :B]
    of_codes = Prepared(only(few), [codes], N, code_size, torch.uint8, True, first)
    of_floats = Prepared(only(few), [codes], N, width, torch.float32, True, encode, checks=True)
    return OfCodesOrFloats(of_codes, of_floats)
