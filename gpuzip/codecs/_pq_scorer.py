"""Two ways to score PQ codes: look-up tables for few queries, decoded rows and a matrix product for many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpuzip.ops import adc_gather, adc_scan, decode, max_of_groups
from gpuzip.parallel import map_blocks

if TYPE_CHECKING:
    from gpuzip.codes import Codes

# From this many queries on, decoding a row once costs less than a table look-up per query.
_MANY_QUERIES = {"cpu": 128, "cuda": 16}
_BLOCK_ROWS = {"cpu": 4096, "cuda": 65536}
_TILE = 1 << 17  # table entries that stay in a CPU core's cache while they are summed


class LutScorer:
    """Sums of look-up tables; the final word on every score.

    lut: (Q, M, K), so that the key of a row is scale * sum_m lut[q, m, code[m]].
    """

    is_exact = True

    def __init__(self, codes: Codes, centroids: Tensor, queries: Tensor, metric: str) -> None:
        M, _, S = centroids.shape
        self._codes, self._centroids, self._queries, self._metric = codes, centroids, queries, metric
        self.N, self.Q = len(codes), len(queries)
        sub = queries.view(-1, M, S).permute(1, 2, 0).contiguous()  # [M, S, Q]
        tables = _tables(sub, centroids.mT.contiguous(), metric)
        self._lut = tables.transpose(0, 1).contiguous()  # [Q, M, K]
        self._scale = _inverse(codes.norms) if metric == "cosine" else None

    def group_max(self, group: int) -> Tensor:
        return adc_scan(self._codes.data, self._lut, self._scale, group)

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def gather(self, ids: Tensor) -> Tensor:
        return adc_gather(self._codes.data, self._lut, self._scale, ids)

    def exact(self, queries: Tensor) -> LutScorer:
        queries = queries.to(self._queries.device)
        return LutScorer(self._codes, self._centroids, self._queries[queries], self._metric)


class ProductScorer(LutScorer):
    """Finds candidates by a low-precision matrix product over decoded rows; their keys are LutScorer's."""

    is_exact = False

    def __init__(self, codes: Codes, centroids: Tensor, queries: Tensor, metric: str) -> None:
        super().__init__(codes, centroids, queries, metric)
        self._dtype = _product_dtype(queries.device)
        self._table = centroids.to(self._dtype)
        self._columns = queries.T.to(self._dtype).contiguous()  # [D, Q]
        self._square = queries.square().sum(1, keepdim=True)  # [Q, 1]

    def ceiling(self, estimate: Tensor) -> Tensor:
        """What rounding can hide: of the query, of the row, of sums in float32, and of the product itself.

        With q' and x' the rounded factors, |q.x - q'.x'| <= |q - q'| |x| + |q'| |x - x'|, and both
        differences are known. The product is rounded by at most u of itself.
        """
        D, u = len(self._columns), torch.finfo(self._dtype).eps / 2
        norm: Tensor = self._square.sqrt()
        own_rounding = 1.01 * u * estimate.abs()
        rounded = self._columns.float().T
        query_error = torch.linalg.vector_norm(self._queries - rounded, dim=1, keepdim=True)
        per_reach: Tensor = query_error + 1.01 * norm * (
            _relative_error(self._centroids, self._table) + D * 2.0**-22
        )
        if self._metric == "cosine":
            return estimate + per_reach + own_rounding
        reach = self._codes.norms.max()
        if self._metric == "ip":
            return estimate + per_reach * reach + own_rounding
        return estimate + 2 * (per_reach + 1.01 * u * norm) * reach + 2.0**-18 * (norm + reach).square()

    def group_max(self, group: int) -> Tensor:
        best = torch.empty((self.Q, -(-self.N // group)), device=self._columns.device)
        block = max(_BLOCK_ROWS[self._columns.device.type], group)

        def one_block(start: int, stop: int) -> None:
            groups = slice(start // group, -(-stop // group))
            best[:, groups] = max_of_groups(self._keys(start, stop), group)

        if self._columns.is_cuda:
            for start in range(0, self.N, block):
                one_block(start, min(start + block, self.N))
        else:
            map_blocks(one_block, self.N, block)
        return best.sub_(self._square) if self._metric == "l2" else best

    def _keys(self, start: int, stop: int) -> Tensor:
        """(n, Q) estimates for rows start to stop."""
        rows = decode(self._codes.data[start:stop], self._table)
        keys = rows @ self._columns
        if self._metric == "ip":
            return keys
        if self._metric == "cosine":
            assert self._scale is not None
            return keys.float().mul_(self._scale[start:stop, None])
        return keys.float().mul_(2).sub_(self._codes.norms[start:stop, None].square())


def pq_scorer(codes: Codes, centroids: Tensor, queries: Tensor, metric: str) -> LutScorer:
    """The scorer that is faster for this many queries. queries: (Q, M*S) float32."""
    if metric == "cosine":
        queries = queries * _inverse(torch.linalg.vector_norm(queries, dim=1))[:, None]
    many = len(queries) >= _MANY_QUERIES[queries.device.type] and len(codes) >= 4096
    return (ProductScorer if many else LutScorer)(codes, centroids, queries, metric)


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


def _relative_error(centroids: Tensor, rounded: Tensor) -> Tensor:
    """r such that |x - x'| <= r |x| for any row of centroids x and the same row of rounded ones x'."""
    error = torch.linalg.vector_norm(centroids - rounded.float(), dim=2)
    norms = torch.linalg.vector_norm(centroids, dim=2)
    return torch.where(norms > 0, error / norms, 0).max()


def _inverse(norms: Tensor) -> Tensor:
    return torch.where(norms > 0, 1 / norms, 0)


def _product_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the matrix unit has it; elsewhere it would be slower than float32."""
    if device.type == "cuda":
        return torch.bfloat16
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return torch.bfloat16 if has_amx or has_bf16 else torch.float32
