"""Hamming distances of packed bits as keys: the fewer bits differ, the greater."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gpuzip.ops import hamming_gather, hamming_scan

if TYPE_CHECKING:
    from gpuzip.codes import Codes

_ABSENT = (1 << 31) - 1  # the distance of a forbidden row


class HammingScorer:
    """Exact: distances are below 2**24, which float32 holds. queries: (Q, B) uint8."""

    is_exact = True
    gather_cost = 1

    def __init__(self, codes: Codes, queries: Tensor, mask: Tensor | None = None) -> None:
        self._codes, self._queries, self._mask = codes, queries, mask
        self.N, self.Q = len(codes), len(queries)

    def group_max(self, group: int) -> Tensor:
        return self._keys(hamming_scan(self._queries, self._codes.data, self._mask, group))

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def gather(self, ids: Tensor) -> Tensor:
        return self._keys(hamming_gather(self._queries, self._codes.data, self._mask, ids))

    def exact(self, queries: Tensor) -> HammingScorer:
        return HammingScorer(self._codes, self._queries[queries.to(self._queries.device)], self._mask)

    def _keys(self, distances: Tensor) -> Tensor:
        keys = distances.float().neg_()
        return keys if self._mask is None else keys.masked_fill_(distances == _ABSENT, float("-inf"))
