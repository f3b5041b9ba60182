"""Scores of rows that are sums of codewords, from look-up tables and the norms of rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from gpuzip._core.device import is_gpu
from gpuzip._core.matmul import matrix_product
from gpuzip._core.planes import Unchanged
from gpuzip._core.rows import SOUND_SQUARES
from gpuzip.ops import adc_gather, adc_scan, loops_are_used
from gpuzip.ops.adc import RowTerms
from gpuzip.ops.candidates import closest, codeword_sums
from gpuzip.ops.few import Few, only, searched, sums_few
from gpuzip.ops.once_rounded import products_rounded_once, squares_rounded_once
from gpuzip.ops.one_pass import adc_topk, tables_pay
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import Prepared
from gpuzip.search.scorer import ALL, Attempted
from gpuzip.search.scorers.common import closest_for, inverse_norms, minus_squares, normalized, proven
from gpuzip.search.scorers.floats import are_kept

_FEW_ROWS = 128  # per query: their scores take less time than exact tables


class SumsScorer:
    """Exact scores from q.x = sum of q.c over a row's codewords c.

    codebooks: (P, M, K, S); each of the P parts of a row is the sum of M codewords. queries: (Q, P*S)
    float32. mask: (N,) bool or None; a forbidden row scores -inf. decode: of codes, their rows. For "l2" the
    score is 2 q.x - |x|^2 - |q|^2.
    """

    is_exact = True
    gather_cost = 1

    def __init__(
        self,
        packed: Packed,
        codebooks: Tensor,
        decode: Callable[[Tensor], Tensor],
        queries: Tensor,
        metric: str,
        mask: Tensor | None = None,
    ) -> None:
        if metric == "cosine":
            queries = normalized(queries)
        self.N, self.Q = len(packed), len(queries)
        self._packed, self._codebooks, self._decode, self._queries = packed, codebooks, decode, queries
        self._metric, self._mask = metric, mask
        self._scale = inverse_norms(packed) if metric == "cosine" else None
        self._extra = self._coef = None
        if metric == "l2":
            self._extra = minus_squares(packed)[:, None]
            self._coef = queries.new_ones((self.Q, 1))
            self._square = _squares(queries)[:, None]

    @cached_property
    def _lut(self) -> Tensor:
        P, M, K, S = shape = self._codebooks.shape
        wide: Tensor = self._packed.remembered(
            f"codebooks {tuple(shape)} in float64", lambda: self._codebooks.reshape(P, M * K, S).double()
        )
        norms = _norms_of_words(self._packed, self._codebooks)
        return _tables(self._queries, wide, norms, K, self._factor)

    @property
    def _factor(self) -> float:
        return 2.0 if self._metric == "l2" else 1.0

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
        of_codes = self._packed, self._codebooks, self._decode
        return SumsScorer(*of_codes, self._queries[queries], self._metric, self._mask)

    def one_pass(self, k: int) -> Attempted | None:
        found = self._by_kept_rows(k) if self._mask is None else None
        if found is not None:
            return proven(found)
        if not tables_pay(self._packed.data, self._codebooks.shape[2], self.Q):
            return None
        taken = closest_for(k, self.N)
        if taken <= _FEW_ROWS < self.N and (close := self._by_estimates(k, taken)) is not None:
            return close
        return proven(self._best_by_tables(self._lut, k))

    def _best_by_tables(self, lut: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
        shift = -self._square if self._metric == "l2" else None
        terms = RowTerms(self._scale, self._mask, self._extra, self._coef)
        return adc_topk([self._packed.data], lut, k, terms, shift)

    def _by_estimates(self, k: int, taken: int) -> Attempted | None:
        """Take rows by tables of float32, whose sums round in any order, and score the best exactly."""
        codes, words = self._packed.data, self._codebooks
        if words.shape[2] != 256 or not loops_are_used() or is_gpu(codes.device):
            return None
        found = self._best_by_tables(_estimated_tables(self._queries * self._factor, words), taken)
        if found is None:
            return None
        of_words = codes, words, _norms_of_words(self._packed, words)
        square, bias = (None, None) if self._extra is None else (self._square, self._extra[:, 0])
        are_told = True

        def exact(ids: Tensor) -> Tensor:
            nonlocal are_told
            scores = codeword_sums(of_words, (self._queries, square), (self._scale, bias), ids)
            are_told &= scores is not None
            return ids.new_zeros(ids.shape, dtype=torch.float32) if scores is None else scores

        best = closest(*found, found[0] + self._error()[:, None], k, self.N, exact)
        return best if are_told else None

    def _error(self) -> Tensor:
        """(Q,): the most by which a score is above its estimate."""
        P, M, _, S = self._codebooks.shape
        reach = _reach(self._packed, self._codebooks, self._scale)
        length = torch.linalg.vector_norm(self._queries, dim=1)
        off, lost = 1.05 * (S + P * M + 16) * 2.0**-22, S * P * 2.0**-140
        if self._metric == "l2":
            length, reach = (length + reach).square_(), 2.0
        error: Tensor = length.mul_(off * reach).add_(lost)
        return error

    def _by_kept_rows(self, k: int) -> tuple[Tensor, Tensor] | None:
        few = _few(self._packed, self._codebooks, self._decode, self._metric, normalize=False)
        if few is None or not few.can_search(self.Q, k):
            return None
        return searched(few, self._queries.contiguous(), self.Q, k)

    def _score(self, sums: Tensor, queries: slice = ALL) -> Tensor:
        return sums.sub_(self._square[queries]) if self._metric == "l2" else sums


def prepared_sums(
    packed: Packed, codebooks: Tensor, decode: Callable[[Tensor], Tensor], metric: str
) -> Prepared | None:
    """What `SumsScorer` finds for few queries without a mask, of so few rows that they are kept as floats."""
    few = _few(packed, codebooks, decode, metric, normalize=metric == "cosine")
    if few is None:
        return None
    width = codebooks.shape[0] * codebooks.shape[3]
    return Prepared(only(few), [packed.data], len(packed), width, torch.float32, metric == "l2")


def _few(
    packed: Packed, codebooks: Tensor, decode: Callable[[Tensor], Tensor], metric: str, *, normalize: bool
) -> Few | None:
    """A search by products with kept rows; None for many rows, or for some that are no numbers."""
    if not loops_are_used() or not are_kept(packed, codebooks.shape[0] * codebooks.shape[3]):
        return None

    def found() -> tuple[Unchanged, Few | None]:
        unchanged = Unchanged([packed.data])
        if not bool(packed.norms.isfinite().all()):
            return unchanged, None
        scale = inverse_norms(packed) if metric == "cosine" else None
        bias = minus_squares(packed) if metric == "l2" else None
        reach = _reach(packed, codebooks, scale)
        rows, asked = packed.floats(decode), (normalize, SOUND_SQUARES)
        words = packed.data, codebooks, _norms_of_words(packed, codebooks)
        few = sums_few(rows, words, (scale, bias), reach, closest_for, asked)
        return unchanged, few

    unchanged, few = packed.remembered(f"kept rows by {metric} {normalize}", found)
    return few if unchanged() else None


def _norms_of_words(packed: Packed, codebooks: Tensor) -> Tensor:
    """(P, M*K) float64."""
    norms: Tensor = packed.remembered(
        f"norms of codewords {tuple(codebooks.shape)}",
        lambda: torch.linalg.vector_norm(codebooks.flatten(1, 2).double(), dim=2),
    )
    return norms


def _reach(packed: Packed, codebooks: Tensor, scale: Tensor | None) -> float:
    """The largest sum of the norms of a row's codewords, times its scale."""

    def found() -> float:
        norms = adc_scan(packed.data, torch.linalg.vector_norm(codebooks, dim=3).flatten(0, 1)[None])[0]
        return float((norms if scale is None else norms * scale).max())

    name = f"reach of {tuple(codebooks.shape)} {scale is None}"
    reach: float = packed.while_unchanged(name, [packed.data], found)
    return reach


def _estimated_tables(queries: Tensor, codebooks: Tensor) -> Tensor:
    """(Q, P*S), (P, M, K, S) -> (Q, P*M, K) float32: q.c, with sums in any order."""
    P, _, K, S = codebooks.shape
    parts = queries.view(-1, P, S).transpose(0, 1)  # [P, Q, S]
    tables = matrix_product(torch.bmm, parts, codebooks.flatten(1, 2).mT)
    return tables.transpose(0, 1).reshape(len(queries), -1, K)


def _tables(queries: Tensor, codebooks: Tensor, norms: Tensor, K: int, factor: float) -> Tensor:
    """(Q, P*S), (P, M*K, S) float64 -> (Q, P*M, K): factor * q.c.

    Sums are in float64. A float32 product would round a query's table differently depending on the others.
    On a CPU they are rounded once, as where no table is made.
    """
    P, _, S = codebooks.shape
    parts = queries.view(-1, P, S).transpose(0, 1).double() * factor  # [P, Q, S]
    if is_gpu(queries.device):
        tables = matrix_product(torch.bmm, parts, codebooks.mT).float()
    else:
        tables = products_rounded_once(parts, codebooks, norms)
    return tables.transpose(0, 1).reshape(len(queries), -1, K)


def _squares(queries: Tensor) -> Tensor:
    return queries.square().sum(1) if is_gpu(queries.device) else squares_rounded_once(queries)
