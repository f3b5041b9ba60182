"""Scores of RaBitQ codes: table look-ups by byte of the bits, combined with factors kept per row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gpuzip._core.device import kind
from gpuzip.ops import adc_gather, adc_scan
from gpuzip.ops.adc import RowTerms
from gpuzip.ops.one_pass import adc_topk
from gpuzip.ops.rabitq_query import sign_tables
from gpuzip.search.memory import workspace
from gpuzip.search.scorer import ALL, Attempted
from gpuzip.search.scorers.common import forbid, proven
from gpuzip.search.scorers.rabitq_factors import Coefficients, Terms

_ROWS = {"cpu": 1 << 16, "cuda": 1 << 20}  # rows whose planes are joined at a time


class RaBitQScorer:
    """Exact scorer of the codec's estimates.

    planes: (N, W) uint8 each, the highest bits first. verify: called with rows before they are read.
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
    ) -> None:
        self._verify = verify
        self._planes, self._terms, self._asked, self._mask = planes, terms, asked, mask
        self.N, self.Q = len(planes[0]), len(asked.across)
        W = planes[0].shape[1]
        self._width = sum(plane.shape[1] for plane in planes)
        self._lut = sign_tables(asked.across, W, self._width // W)

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
        terms = RowTerms(self._terms.scale, self._mask, self._terms.extra, self._asked.coef)
        return proven(adc_topk(self._planes, self._lut, k, terms, self._asked.shift))

    def _side_by_side(self, rows: slice | Tensor) -> Tensor:
        self._verify(rows)
        parts = [plane[rows] for plane in self._planes]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def exact(self, queries: Tensor | None = None) -> RaBitQScorer:
        if queries is None:
            return self
        asked = Coefficients(*(part[queries] for part in self._asked))
        return RaBitQScorer(self._planes, self._terms, asked, self._mask, self._verify)
