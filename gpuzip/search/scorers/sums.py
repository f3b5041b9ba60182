"""Scores of rows that are sums of codewords, from look-up tables and the norms of rows."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip.ops import adc_gather, adc_scan
from gpuzip.ops.adc import RowTerms
from gpuzip.ops.one_pass import adc_topk, tables_pay
from gpuzip.search.packed import Packed
from gpuzip.search.scorer import ALL, Attempted
from gpuzip.search.scorers.common import inverse_norms, minus_squares, normalized, proven


class SumsScorer:
    """Exact scores from q.x = sum of q.c over a row's codewords c.

    codebooks: (P, M, K, S); each of the P parts of a row is the sum of M codewords. queries: (Q, P*S)
    float32. mask: (N,) bool or None; a forbidden row scores -inf. For "l2" the score is
    2 q.x - |x|^2 - |q|^2.
    """

    is_exact = True
    gather_cost = 1

    def __init__(
        self, packed: Packed, codebooks: Tensor, queries: Tensor, metric: str, mask: Tensor | None = None
    ) -> None:
        if metric == "cosine":
            queries = normalized(queries)
        self.N, self.Q = len(packed), len(queries)
        self._packed, self._codebooks, self._queries = packed, codebooks, queries
        self._metric, self._mask = metric, mask
        self._scale = inverse_norms(packed) if metric == "cosine" else None
        self._extra = self._coef = None
        if metric == "l2":
            self._extra = minus_squares(packed)[:, None]
            self._coef = queries.new_ones((self.Q, 1))
            self._square = queries.square().sum(1, keepdim=True)

    @cached_property
    def _lut(self) -> Tensor:
        P, M, K, S = shape = self._codebooks.shape
        wide: Tensor = self._packed.remembered(
            f"codebooks {tuple(shape)} in float64", lambda: self._codebooks.reshape(P, M * K, S).double()
        )
        return _tables(self._queries, wide, K, 2.0 if self._metric == "l2" else 1.0)

    def group_max(self, group: int) -> Tensor:
        return self._score(
            adc_scan(self._packed.data, self._lut, self._scale, group, self._mask, self._extra, self._coef)
        )

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        coef = None if self._coef is None else self._coef[queries]
        sums = adc_gather(
            self._packed.data, self._lut[queries], self._scale, ids, self._mask, self._extra, coef
        )
        return self._score(sums, queries)

    def exact(self, queries: Tensor | None = None) -> SumsScorer:
        if queries is None:
            return self
        return SumsScorer(self._packed, self._codebooks, self._queries[queries], self._metric, self._mask)

    def one_pass(self, k: int) -> Attempted | None:
        if not tables_pay(self._packed.data, self._codebooks.shape[2], self.Q):
            return None
        shift = -self._square if self._metric == "l2" else None
        terms = RowTerms(self._scale, self._mask, self._extra, self._coef)
        return proven(adc_topk([self._packed.data], self._lut, k, terms, shift))

    def _score(self, sums: Tensor, queries: slice = ALL) -> Tensor:
        return sums.sub_(self._square[queries]) if self._metric == "l2" else sums


def _tables(queries: Tensor, codebooks: Tensor, K: int, factor: float) -> Tensor:
    """(Q, P*S), (P, M*K, S) float64 -> (Q, P*M, K): factor * q.c.

    Sums are in float64. A float32 product would round a query's table differently depending on the others.
    """
    P, _, S = codebooks.shape
    parts = queries.view(-1, P, S).transpose(0, 1).double() * factor  # [P, Q, S]
    tables = matrix_product(torch.bmm, parts, codebooks.mT).float()
    return tables.transpose(0, 1).reshape(len(queries), -1, K)
