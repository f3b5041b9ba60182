"""Scores of RaBitQ codes: table look-ups by byte of the bits, combined with factors kept per row."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from gpuzip._core.device import kind
from gpuzip.ops import adc_gather, adc_scan
from gpuzip.ops.adc import RowTerms
from gpuzip.ops.candidates import closest, sign_sums
from gpuzip.ops.grid import Array, grid_best
from gpuzip.ops.one_pass import adc_topk, product_topk
from gpuzip.ops.rabitq_query import sign_tables
from gpuzip.ops.row_writers import sign_rows
from gpuzip.search.memory import workspace
from gpuzip.search.scorer import ALL, Attempted
from gpuzip.search.scorers.common import closest_for, forbid, proven
from gpuzip.search.scorers.costs import product_pays
from gpuzip.search.scorers.rabitq_factors import Coefficients, Terms, share_of_roundings

Kept = tuple[Callable[[], Tensor | None], Callable[[int], tuple[Array, Tensor | None] | None]]
"""`turned` and `grid` of `RaBitQScorer`."""

_ROWS = {"cpu": 1 << 16, "cuda": 1 << 20}  # rows whose planes are joined at a time


class RaBitQScorer:
    """Exact scorer of the codec's estimates.

    planes: (N, W) uint8 each, the highest bits first. verify: called with rows before they are read.
    largest: finds the largest size of scales and, (E,), of extra columns. turned: finds the columns of planes
    that are kept. grid: finds, for so many queries, what `grid_best` needs, facts and tiles of planes; None
    where products of bytes do not pay.
    """

    is_exact = True
    gather_cost = 1

    def __init__(
        self,
        planes: list[Tensor],
        terms: Terms,
        asked: Coefficients,
        mask: Tensor | None,
        verify: Callable[[slice | Tensor], object],
        largest: Callable[[], tuple[float, Tensor]],
        turned: Callable[[], Tensor | None],
        grid: Callable[[int], tuple[Array, Tensor | None] | None],
    ) -> None:
        self._verify, self._largest, self._turned, self._grid = verify, largest, turned, grid
        self._planes, self._terms, self._asked, self._mask = planes, terms, asked, mask
        self.N, self.Q = len(planes[0]), len(asked.across)
        self._width = sum(plane.shape[1] for plane in planes)
        self._bits = self._width // planes[0].shape[1]

    @cached_property
    def _lut(self) -> Tensor:
        return sign_tables(self._asked.across, self._planes[0].shape[1], self._bits)

    @cached_property
    def _signs(self) -> Tensor:
        """Tables of one plane."""
        return sign_tables(self._asked.across, self._planes[0].shape[1], 1)

    def group_max(self, group: int) -> Tensor:
        step = self.N if len(self._planes) == 1 else _ROWS[kind(self._lut.device)]
        best = [self._scanned(slice(start, start + step), group) for start in range(0, self.N, step or 1)]
        scores = torch.cat(best, 1) if best else self._lut.new_empty((self.Q, 0))
        return scores.add_(self._asked.shift)

    def _scanned(self, rows: slice, group: int) -> Tensor:
        scale, extra = self._terms.scale[rows], self._terms.extra[rows]
        mask = None if self._mask is None else self._mask[rows]
        return adc_scan(self._side_by_side(rows), self._lut, scale, group, mask, extra, self._asked.coef)

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        step = max(1, workspace(ids.device) // (8 * self._width * max(1, ids.shape[1])))
        asked = Coefficients(*(part[queries] for part in self._asked))
        blocks = (part.split(step) for part in (self._lut[queries], asked.coef, ids))
        found = [self._gathered(*block) for block in zip(*blocks, strict=True)]
        scores = found[0] if len(found) == 1 else torch.cat(found)
        return forbid(scores.add_(asked.shift), ids, self._mask)

    def _gathered(self, lut: Tensor, coef: Tensor, ids: Tensor) -> Tensor:
        rows = ids.clamp(0, max(0, self.N - 1)).reshape(-1)
        place = torch.arange(len(rows), device=ids.device).view(ids.shape)
        place = place.masked_fill((ids < 0) | (ids >= self.N), -1)
        scale, extra = self._terms.scale[rows], self._terms.extra[rows]
        return adc_gather(self._side_by_side(rows), lut, scale, place, None, extra, coef)

    def one_pass(self, k: int) -> Attempted | None:
        self._verify(slice(None))
        if (grid := self._grid(self.Q)) is not None:
            return self._by_bytes(k, *grid)
        pays = product_pays(self.Q, self.N, self._width, self._asked.across.shape[1], 16)
        if pays and (found := self._by_product(k)) is not None:
            return found
        return self.by_tables(k)

    def by_tables(self, k: int) -> Attempted | None:
        """Sum the entries of tables in registers, where there is a loop for it."""
        asked = self._row_terms, self._asked.shift, self._turned()
        return proven(adc_topk(self._planes, self._lut, k, *asked))

    def _by_bytes(self, k: int, facts: Array, tiles: Tensor | None) -> Attempted:
        """Estimate scores by products of codes and rounded queries; scan again where they prove none."""
        asked = self._planes, tiles, self._asked, self._row_terms
        scores, rows, unsure = grid_best(*asked, k, facts)
        some = unsure.nonzero()[:, 0]
        if not len(some):
            return scores, rows, None
        if (others := self.exact(some).by_tables(k)) is None:
            return scores, rows, unsure
        scores[some], rows[some] = others[:2]
        return scores, rows, None

    @property
    def _row_terms(self) -> RowTerms:
        return RowTerms(self._terms.scale, self._mask, self._terms.extra, self._asked.coef)

    def _by_product(self, k: int) -> Attempted | None:
        """Estimate scores by float32 products of rows on the grid."""
        across, coef, shift = self._asked
        write = sign_rows(self._planes, across.shape[1], self._terms.scale, self._terms.extra)
        if write is None:
            return None
        taken = closest_for(k, self.N)
        found = product_topk(write, self.N, torch.cat([across, coef], 1), taken, (None, None, self._mask))
        if found is None:
            return None
        ceilings = found[0] + (shift + self._rounding())
        return closest(*found, ceilings, k, self.N, self._exactly)

    def _exactly(self, ids: Tensor) -> Tensor:
        """`gather`, by tables of one plane."""
        return sign_sums(self._planes, self._signs, self._row_terms, self._asked.shift, ids)

    def _rounding(self) -> Tensor:
        """The most by which roundings of float32 make a product and a score differ: (Q, 1)."""
        across, coef, shift = self._asked
        largest, columns = self._largest()
        share = share_of_roundings(across.shape[1], self._width, coef.shape[1])
        size = across.abs().sum(1, keepdim=True) * (largest * ((1 << self._bits) - 1))
        size += (coef.abs() * columns).sum(1, keepdim=True)
        return size.mul_(share).add_(shift.abs(), alpha=2.0**-21)

    def _side_by_side(self, rows: slice | Tensor) -> Tensor:
        self._verify(rows)
        parts = [plane[rows] for plane in self._planes]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def exact(self, queries: Tensor | None = None) -> RaBitQScorer:
        if queries is None:
            return self
        asked = Coefficients(*(part[queries] for part in self._asked))
        of_codes = self._mask, self._verify, self._largest, self._turned, self._grid
        return RaBitQScorer(self._planes, self._terms, asked, *of_codes)
