"""Scores of PQ codes: look-up tables for few queries, decoded rows and a matrix product for many."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from gpuzip._core.device import is_capturing, is_gpu
from gpuzip._core.rows import SOUND_SQUARES
from gpuzip.ops import adc_gather, adc_scan, product_scan
from gpuzip.ops.adc import RowTerms
from gpuzip.ops.candidates import Tables, closest_by_tables, table_sums
from gpuzip.ops.few import Few, adc_few, cheaper, only, product_few, searched, unless
from gpuzip.ops.lookup_tables import lookup_tables
from gpuzip.ops.one_pass import adc_topk, can_multiply, product_topk
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import Prepared
from gpuzip.search.scorer import ALL, Attempted
from gpuzip.search.scorers.common import (
    KEPT,
    LOST,
    closest_for,
    estimates_hold,
    inverse,
    inverse_norms,
    largest_norm,
    minus_squares,
    normalized,
    of_estimates,
    proven,
)
from gpuzip.search.scorers.costs import FEW_QUERIES, of_kept_product, of_tables, product_pays
from gpuzip.search.scorers.layouts import Layout, TableLayout
from gpuzip.search.scorers.rounding import Product, error_of, product_of, unit_of

# From this many queries on, decoding a row once costs a GPU less than a table look-up per query. On an H200
# 48 look-ups take 27 ps per row and query; the product of 16 queries took 290 ps per row while its gathers
# were 2 bytes long. On a CPU `LutScorer` chooses between tables and float32 products. A Zen 4 has a unit for
# bfloat16, by whose coarse estimates nearly all codes took it longer than the faster one of these.
_MANY_QUERIES = 8
_MANY_ROWS = 4096  # fewer rows are scored exactly, which takes little time
_FEW_ROWS = 128  # per query: their sums take less time than tables
_SPACES = 1 << 11  # sub-spaces whose centroids are squared at a time


def entries(device: torch.device) -> int:
    """Entries of tables for codes of fewer bits: one look-up reads a nibble, on a GPU a byte."""
    return 256 if is_gpu(device) else 16


class LutScorer:
    """Exact scores from look-up tables (Q, M, K): a row scores scale * sum_m lut[q, m, code[m]].

    mask: (N,) bool or None; a forbidden row scores -inf.
    """

    is_exact = True
    gather_cost = 1

    def __init__(
        self,
        packed: Packed,
        centroids: Tensor,
        queries: Tensor,
        metric: str,
        mask: Tensor | None = None,
        layout: Layout | None = None,
    ) -> None:
        self._packed, self._centroids, self._queries, self._metric = packed, centroids, queries, metric
        self._layout = layout or TableLayout(centroids)
        self.N, self.Q, self._mask = len(packed), queries.shape[0], mask
        self._columns = _columns(packed, centroids)
        self._scale = inverse_norms(packed) if metric == "cosine" else None

    @cached_property
    def _lut(self) -> Tensor:
        return lookup_tables(self._queries, self._columns, self._metric == "l2")

    def group_max(self, group: int) -> Tensor:
        return adc_scan(self._packed.data, self._lut, self._scale, group, self._mask)

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        return adc_gather(self._packed.data, self._lut[queries], self._scale, ids, self._mask)

    def exact(self, queries: Tensor | None = None) -> LutScorer:
        some = self._queries if queries is None else self._queries[queries]
        return LutScorer(self._packed, self._centroids, some, self._metric, self._mask, self._layout)

    def one_pass(self, k: int) -> Attempted | None:
        codes = self._packed.data
        if self._product_pays():
            of_codes = self._packed, self._centroids, self._queries, self._metric, self._mask
            return ProductScorer(*of_codes, self._layout, torch.float32).one_pass(k)
        turned = self._packed.turned([codes])
        few = None
        if self._mask is None:
            few = adc_few(codes, self._columns, self._metric == "l2", self._scale, turned)
        if few is not None and few.can_search(self.Q, k):
            found = searched(few, self._queries.contiguous(), self.Q, k)
            if found is not None:
                return proven(found)
        terms = RowTerms(self._scale, self._mask, None, None)
        return proven(adc_topk([codes], self._lut, k, terms, turned=turned))

    def _product_pays(self) -> bool:
        K = self._centroids.shape[1]
        if (self.Q <= FEW_QUERIES and K in (16, 256)) or not can_multiply(self._queries, self.N):
            return False
        D = _width_of(self._centroids, self._layout)
        return product_pays(self.Q, self.N, self._packed.raw.shape[1], D, K)


class ProductScorer(LutScorer):
    """Finds candidates by a low-precision matrix product over decoded rows, and scores them as LutScorer.

    The rounded factors are q' = q * s and x' = x * t. t is a power of two that depends on the codec. s scales
    each query to norm 1; for "l2", where norms of rows are added to products, one s scales the longest query
    to norm 1. Estimates keep this scale; `ceiling` undoes it for the few that matter.
    """

    is_exact = False

    def __init__(
        self,
        packed: Packed,
        centroids: Tensor,
        queries: Tensor,
        metric: str,
        mask: Tensor | None = None,
        layout: Layout | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(packed, centroids, queries, metric, mask, layout)
        self._dtype = dtype or _product_dtype(queries.device)
        unit = unit_of(self._dtype, queries.device)
        self._product: Product = packed.remembered(
            f"product of {self._dtype} within {unit}", lambda: product_of(centroids, self._dtype, unit)
        )
        self._length = torch.linalg.vector_norm(queries, dim=1, keepdim=True)  # [Q, 1]
        if metric == "ip":
            queries = queries * inverse(self._length)
        elif metric == "l2":
            self._longest = self._length.amax().clamp_(min=self._product.shortest)
            self._shrink = self._longest.reciprocal()
            queries = queries * self._shrink
        self._asked = queries.to(self._dtype)  # [Q, D]

    def group_max(self, group: int) -> Tensor:
        of_rows = self._scale, self._bias(), self._mask
        return product_scan(self._packed.data, self._product.table, self._asked, *of_rows, group)

    def _bias(self) -> Tensor | None:
        """For "l2" of q.x - |x|^2 / 2, scaled as the product is."""
        if self._metric != "l2":
            return None
        bias: Tensor = minus_squares(self._packed) * (0.5 * self._product.scale * self._shrink)
        return bias

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        few = ids.shape[1] <= _FEW_ROWS and not is_gpu(ids.device)
        scores = table_sums(self._tables(queries), ids) if few else None
        return super().gather(ids, queries) if scores is None else scores

    def _tables(self, queries: slice = ALL) -> Tables:
        of_queries = self._queries[queries], self._metric == "l2"
        return self._packed.data, self._centroids, *of_queries, self._scale, self._mask

    def one_pass(self, k: int) -> Attempted | None:
        """Estimate every score by float32 products of decoded rows, which takes few candidates."""
        if self._dtype != torch.float32 or not can_multiply(self._asked, self.N):
            return None
        layout, taken = self._layout, closest_for(k, self.N)
        asked = self._asked if layout.columns is None else self._asked[:, layout.columns]
        codes = self._packed.data  # verified at every search
        write = self._packed.remembered(layout.name, lambda: layout.writer(codes))
        found = product_topk(write, self.N, asked, taken, (self._scale, self._bias(), self._mask))
        if found is None:
            return None
        few = k <= _FEW_ROWS or self._centroids.shape[2] == 1  # an entry of one value is a product
        best = closest_by_tables(self._tables(), found, self.ceiling(found[0]), k) if few else None
        return of_estimates(self, found, k) if best is None else best

    def ceiling(self, estimate: Tensor) -> Tensor:
        """The estimate, scaled back, plus the largest possible rounding error (see `error_of`).

        If rows are so short that their norms lose digits, no estimate by cosine holds and the bound is inf.
        The bound of a group without allowed rows is -inf.
        """
        D, product, length = self._asked.shape[1], self._product, self._length
        unscale = 1 / product.scale
        if self._metric == "cosine":
            largest: float = self._packed.remembered("largest inverse norm", self._largest_inverse)
            if not estimates_hold(largest, D):
                return torch.where(estimate.isneginf(), estimate, float("inf"))
            return torch.add(length * error_of(D, product, 1.0, largest), estimate, alpha=unscale)
        lost = math.sqrt(D) * LOST
        longest: float = self._packed.remembered("longest", lambda: float(largest_norm(self._packed)))
        reach = longest + lost
        hidden = error_of(D, product, reach, 1.0)
        if self._metric == "ip":
            return torch.addcmul(length * hidden + lost * reach, length, estimate, value=unscale)
        small = math.sqrt(D) * 2.0**-24 * (reach + product.row_error)  # of queries shorter than the longest
        slack = 2.0**-18  # of (|q| + reach)^2, for norms and their squares
        above = (length * (slack - 1)).add_(2 * hidden + 2 * slack * reach).mul_(length)
        above.add_(self._longest, alpha=2 * small).add_(2 * lost * reach + slack * reach**2)
        return torch.addcmul(above, self._longest, estimate, value=2 * unscale)

    def _largest_inverse(self) -> float:
        assert self._scale is not None
        return float(self._scale.max())


def pq_scorer(
    packed: Packed,
    centroids: Tensor,
    queries: Tensor,
    metric: str,
    mask: Tensor | None = None,
    layout: Layout | None = None,
) -> LutScorer:
    """The scorer that is faster for this many queries. queries: (Q, M*S) float32; mask: (N,) bool or None.

    Under CUDA graph capture it is the exact one: a captured graph cannot read which queries to search again.
    """
    if metric == "cosine":
        queries = normalized(queries)
    many = len(packed) >= _MANY_ROWS and queries.shape[0] >= _many_queries(queries.device)
    by_product = many and not is_capturing(queries.device)
    return (ProductScorer if by_product else LutScorer)(packed, centroids, queries, metric, mask, layout)


def _width_of(centroids: Tensor, layout: Layout) -> int:
    """Columns of decoded rows."""
    M, _, S = centroids.shape
    return M * S if layout.columns is None else len(layout.columns)


def _columns(packed: Packed, centroids: Tensor) -> Tensor:
    """Centroids (M, K, S) as columns (S, M, K). Other tables of the same codes have others."""
    columns: Tensor = packed.remembered(
        f"columns of {centroids.shape[1]}", lambda: centroids.permute(2, 0, 1).contiguous()
    )
    return columns


def prepared_tables(
    packed: Packed, centroids: Tensor, metric: str, layout: Layout | None = None
) -> Prepared | None:
    """What `pq_scorer` finds for few queries (Q, M*S) without a mask, of codes that were searched before."""
    codes, is_l2 = packed.data, metric == "l2"
    scale = inverse_norms(packed) if metric == "cosine" else None
    of_queries = metric == "cosine", SOUND_SQUARES
    of_codes = codes, _columns(packed, centroids), is_l2, scale, packed.turned([codes])
    by_tables, layout = adc_few(*of_codes, *of_queries), layout or TableLayout(centroids)
    by_product = _prepared_product(packed, centroids, scale, metric, layout)
    (M, K, S), (N, B), few = centroids.shape, codes.shape, by_tables or by_product
    if few is None:
        return None
    if by_tables is not None and by_product is not None:
        choice = cheaper(
            by_tables, by_product, lambda Q: of_kept_product(Q, N, M * S) < of_tables(Q, N, B, K)
        )
    elif by_tables is not None:
        width = _width_of(centroids, layout)
        choice = unless(by_tables, lambda Q: product_pays(Q, N, B, width, K))
    else:
        choice = only(few)
    return Prepared(choice, [codes], N, M * S, torch.float32, is_l2)


def _prepared_product(
    packed: Packed, centroids: Tensor, scale: Tensor | None, metric: str, layout: Layout
) -> Few | None:
    """A search by products with decoded rows, of so few codes that these are kept, 4 MB at most."""
    N, D = len(packed), centroids.shape[0] * centroids.shape[2]
    if N * D > KEPT or layout.columns is not None or not can_multiply(centroids, N):
        return None
    if scale is not None and not estimates_hold(scale, D):
        return None
    rows = torch.empty((N, D), dtype=torch.float32, device=packed.device)
    layout.writer(packed.data)(0, N, rows)
    reach = 1.0 if scale is not None else float(largest_norm(packed))
    tables, squares = (packed.data, centroids, scale), minus_squares(packed) if metric == "l2" else None
    return product_few(rows, tables, squares, reach, closest_for, (metric == "cosine", SOUND_SQUARES))


def norms_by_table(data: Tensor, centroids: Tensor) -> Tensor:
    """(N,) float32 norms of the rows of codes: sums of the squared norms of their centroids, (M, K, S)."""
    squares = [some.square().sum(2) for some in centroids.split(_SPACES)]
    return adc_scan(data, torch.cat(squares)[None])[0].sqrt_()


def _many_queries(device: torch.device) -> float:
    """The number of queries from which a product of few digits is faster than tables."""
    return _MANY_QUERIES if is_gpu(device) else float("inf")


def _product_dtype(device: torch.device) -> torch.dtype:
    return torch.float16 if is_gpu(device) else torch.float32
