"""Two ways to score PQ codes: look-up tables for few queries, decoded rows and a matrix product for many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpuzip.capture import is_capturing
from gpuzip.codecs._scoring import inverse
from gpuzip.ops import adc_gather, adc_scan, product_scan

if TYPE_CHECKING:
    from gpuzip.codes import Codes

# From this many queries on, decoding a row once costs less than a table look-up per query. On a CPU by
# measurement. On a GPU by a model of an H200, not measured yet: M=48 look-ups are 20 ps a row and query, the
# gathers that decode the row 70 ps, whatever the queries, and its product 1 ps a query: 4 queries are even,
# and the product has a fixed cost beside. It is an estimate too, so few queries stay with tables.
_MANY_QUERIES = {"cpu": 128, "cuda": 8}
_MANY_ROWS = 4096  # fewer are scored exactly in no time
_LOST = 2.0**-62  # squares of smaller values may be lost, so norms can be too low by this for each dimension
_TILE = 1 << 17  # table entries that stay in a CPU core's cache while they are summed


class LutScorer:
    """Sums of look-up tables; the final word on every score.

    lut: (Q, M, K), so that the key of a row is scale * sum_m lut[q, m, code[m]]. mask: (N,) bool or
    None; a row that it forbids has the key -inf.
    """

    is_exact = True
    gather_cost = 1

    def __init__(
        self, codes: Codes, centroids: Tensor, queries: Tensor, metric: str, mask: Tensor | None = None
    ) -> None:
        M, _, S = centroids.shape
        self._codes, self._centroids, self._queries, self._metric = codes, centroids, queries, metric
        self.N, self.Q, self._mask = len(codes), len(queries), mask
        sub = queries.view(-1, M, S).permute(1, 2, 0).contiguous()  # [M, S, Q]
        columns = codes.remembered("centroids", lambda: centroids.mT.contiguous())  # [M, S, K]
        tables = _tables(sub, columns, metric)
        self._lut = tables.transpose(0, 1).contiguous()  # [Q, M, K]
        self._scale = inverse(codes.norms) if metric == "cosine" else None

    def group_max(self, group: int) -> Tensor:
        return adc_scan(self._codes.data, self._lut, self._scale, group, self._mask)

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def gather(self, ids: Tensor) -> Tensor:
        return adc_gather(self._codes.data, self._lut, self._scale, ids, self._mask)

    def exact(self, queries: Tensor) -> LutScorer:
        queries = queries.to(self._queries.device)
        return LutScorer(self._codes, self._centroids, self._queries[queries], self._metric, self._mask)


class ProductScorer(LutScorer):
    """Finds candidates by a low-precision matrix product over decoded rows; their keys are LutScorer's."""

    is_exact = False

    def __init__(
        self, codes: Codes, centroids: Tensor, queries: Tensor, metric: str, mask: Tensor | None = None
    ) -> None:
        super().__init__(codes, centroids, queries, metric, mask)
        self._dtype = _product_dtype(queries.device)
        of_queries, of_rows = _scales(queries, centroids, self._dtype)
        self._columns = (queries * of_queries).to(self._dtype)  # [Q, D]
        self._table = (centroids * of_rows).to(self._dtype)
        self._unscale = 1 / (of_queries * of_rows)  # all powers of two: exact
        self._square = queries.square().sum(1, keepdim=True)  # [Q, 1]
        self._query_error = torch.linalg.vector_norm(
            queries - self._columns.float() / of_queries, dim=1, keepdim=True
        )
        self._row_error = _error_of_rows(centroids, self._table.float() / of_rows, self._dtype)

    def ceiling(self, estimate: Tensor) -> Tensor:
        """What rounding can hide: of the query, of the row, of sums in float32, and of the product itself.

        With q' and x' the rounded factors, |q.x - q'.x'| <= |q - q'| |x| + |q'| |x - x'|. The first
        difference is known, the second is at most u |x| + `_row_error`. The product is rounded by at
        most u of itself. Rows so short that their norms lose digits are no candidates for an estimate by
        cosine. No row of a group without allowed rows is above -inf.
        """
        D, u = self._columns.shape[1], torch.finfo(self._dtype).eps / 2
        norm: Tensor = self._square.sqrt() + D**0.5 * _LOST
        own_rounding = 1.01 * u * estimate.abs()
        rounded_norm = 1.01 * norm + self._query_error
        per_reach: Tensor = self._query_error + rounded_norm * (u + D * 2.0**-22)
        if self._metric == "cosine":
            assert self._scale is not None
            largest = self._scale.max()
            top = estimate + per_reach + rounded_norm * self._row_error * largest + own_rounding
            top = torch.where(largest * _LOST < 2.0**-8 / D, top, float("inf"))
        else:
            reach = self._codes.norms.max() + D**0.5 * _LOST
            hidden = per_reach * reach + rounded_norm * self._row_error
            if self._metric == "ip":
                top = estimate + hidden + own_rounding
            else:
                top = estimate + 2 * (hidden + 1.01 * u * norm * reach) + 2.0**-18 * (norm + reach).square()
        return torch.where(estimate.isneginf(), estimate, top)

    def group_max(self, group: int) -> Tensor:
        bias = None
        if self._metric == "l2":  # 2 q.x - |x|^2, over 2 and scaled as the product is
            bias = self._codes.norms.square().mul_(-0.5 / self._unscale)
        best = product_scan(
            self._codes.data, self._table, self._columns, self._scale, bias, self._mask, group
        )
        if self._metric == "l2":
            return best.mul_(2 * self._unscale).sub_(self._square)
        return best.mul_(self._unscale)


def pq_scorer(
    codes: Codes, centroids: Tensor, queries: Tensor, metric: str, mask: Tensor | None = None
) -> LutScorer:
    """The scorer that is faster for this many queries. queries: (Q, M*S) float32; mask: (N,) bool or None.

    A CUDA graph must not ask the GPU which queries to search again, so under capture all are exact.
    """
    if metric == "cosine":
        queries = queries * inverse(torch.linalg.vector_norm(queries, dim=1))[:, None]
    many = len(queries) >= _MANY_QUERIES[queries.device.type] and len(codes) >= _MANY_ROWS
    by_product = many and not is_capturing(queries.device)
    return (ProductScorer if by_product else LutScorer)(codes, centroids, queries, metric, mask)


def _tables(sub: Tensor, centroids: Tensor, metric: str) -> Tensor:
    """(M, S, Q), (M, S, K) -> (M, Q, K): dot products, or minus squared distances.

    Added up one dimension at a time: a matrix product would round a query's table differently
    beside other queries, and near distances would lose their digits.
    """
    M, S, Q = sub.shape
    K = centroids.shape[2]
    tables = sub.new_zeros((M, Q, K))
    step = max(1, _TILE // (Q * K)) if sub.device.type == "cpu" else M
    for m in range(0, M, step):
        tile = tables[m : m + step]
        for s in range(S):
            query, centroid = sub[m : m + step, s, :, None], centroids[m : m + step, s, None, :]
            if metric == "l2":
                tile -= (query - centroid).square_()
            else:
                tile.addcmul_(query, centroid)
    return tables


def _error_of_rows(centroids: Tensor, rounded: Tensor, dtype: torch.dtype) -> Tensor:
    """t such that |x - x'| <= u |x| + t for any row of centroids x and the same row of rounded ones x'.

    Rounding moves a value by at most u of itself, except where it falls below the normal range: t adds
    up, over the sub-spaces, the most by which a centroid moved further.
    """
    error = torch.linalg.vector_norm(centroids - rounded, dim=2)
    normal = torch.finfo(dtype).eps / 2 * torch.linalg.vector_norm(centroids, dim=2)
    excess = (1.001 * error - normal).clamp(min=0)  # [M, K]; 1.001 for the roundings of this very sum
    bound: Tensor = 1.01 * torch.linalg.vector_norm(excess.amax(1))
    return bound


def _scales(queries: Tensor, centroids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Powers of two, as tensors, that bring the largest value of each near the top of float16's range.

    Values 2**28 below the largest then keep float16's precision. They are found on the device, since
    asking it would stop the stream. Their exponents are bounded so that the squared norms of rows,
    scaled like products, stay within float32.
    """
    if dtype != torch.float16:
        return queries.new_ones(()), queries.new_ones(())
    of_rows = _exponent_to_top(centroids)
    of_queries = torch.minimum(_exponent_to_top(queries), of_rows + 60)
    one = queries.new_ones(())
    return torch.ldexp(one, of_queries), torch.ldexp(one, of_rows)


def _exponent_to_top(values: Tensor) -> Tensor:
    """e such that the largest |value| * 2**e is in [2**14, 2**15), as int32 within -60 and 60."""
    largest = values.abs().amax()
    exponent = torch.where(largest > 0, 15 - torch.frexp(largest).exponent, 0)
    return exponent.clamp(-60, 60)


def _product_dtype(device: torch.device) -> torch.dtype:
    """float16 on a GPU; on a CPU bfloat16 where it has a unit for that, else float32, then the faster."""
    if device.type == "cuda":
        return torch.float16
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return torch.bfloat16 if has_amx or has_bf16 else torch.float32
