"""Scores of rows that are decoded for each search, for codecs without a scorer of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gpuzip._core.device import is_capturing
from gpuzip.ops import rescore
from gpuzip.search.packed import Packed
from gpuzip.search.scorer import ALL, Scorer, exact_in_a_graph
from gpuzip.search.scorers.common import forbid
from gpuzip.search.scorers.floats import FloatScorer, of_sound_rows


class DecodedScorer(FloatScorer):
    """`FloatScorer` over rows that `decode` returns: (n, B) uint8 codes -> (n, D) float32."""

    def __init__(
        self,
        packed: Packed,
        decode: Callable[[Tensor], Tensor],
        queries: Tensor,
        metric: str,
        mask: Tensor | None = None,
    ) -> None:
        mask, norms = of_sound_rows(packed, mask)
        super().__init__(packed.data, norms, queries, metric, mask)
        self._packed, self._decode = packed, decode

    def _rows(self, start: int, stop: int) -> Tensor:
        return self._decode(self._packed.data[start:stop])

    def _write(self, start: int, stop: int, out: Tensor) -> None:
        out.copy_(self._rows(start, stop))

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        inside = ids.clamp(0, max(0, self.N - 1))
        if is_capturing(ids.device):  # finding distinct rows would wait for the GPU
            known, place = inside.reshape(-1), torch.arange(ids.numel(), device=ids.device).view(ids.shape)
        else:
            known, place = inside.unique(return_inverse=True)
        place = place.masked_fill((ids < 0) | (ids >= self.N), -1)
        scores = rescore(self._queries[queries], self._decode(self._packed.data[known]), place, self._metric)
        return forbid(scores, ids, self._mask)

    def _of_some(self, queries: Tensor) -> Scorer:
        return DecodedScorer(self._packed, self._decode, self._queries[queries], self._metric, self._mask)


def decoded_scorer(
    packed: Packed, decode: Callable[[Tensor], Tensor], queries: Tensor, metric: str, mask: Tensor | None
) -> Scorer:
    """The scorer of rows that are decoded for each search."""
    return exact_in_a_graph(DecodedScorer(packed, decode, queries, metric, mask), packed.device)
