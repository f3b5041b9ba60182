"""Scores of float rows: a matrix product finds candidates, and sums in a fixed order score them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gpuzip._core.device import is_gpu, kind
from gpuzip._core.matmul import matrix_product, products_are_float32
from gpuzip._core.parallel import map_blocks
from gpuzip._core.rows import SOUND_SQUARES
from gpuzip.ops import max_of_groups, rescore, topk
from gpuzip.ops.few import float_few, only
from gpuzip.ops.one_pass import half_topk, product_topk
from gpuzip.search.memory import candidate_groups, group_size
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import Prepared
from gpuzip.search.scorer import ALL, Attempted, Exhaustive, Scorer, exact_in_a_graph
from gpuzip.search.scorers.common import (
    GATHER_COST,
    KEPT,
    both,
    closest_for,
    estimates_hold,
    forbid,
    inverse,
    inverse_norms,
    largest_norm,
    minus_squares,
    of_estimates,
    sound_rows,
)

_ROWS = {"cpu": 2048, "cuda": 1 << 18}  # per block, at most
_STEP = 1024  # a block is a multiple of this, which every group size divides
_SCORES = 1 << 26  # of a block on a GPU: 256 MB


class FloatScorer:
    """Scorer of float rows. store: (N, D) float32, float16 or bfloat16. norms: returns their (N,) norms."""

    is_exact = False
    gather_cost = GATHER_COST

    def __init__(
        self, store: Tensor, norms: Callable[[], Tensor], queries: Tensor, metric: str, mask: Tensor | None
    ) -> None:
        self._store, self._norms, self._queries = store, norms, queries
        self._metric, self._mask = metric, mask
        self.N, self.Q = len(store), len(queries)
        length = torch.linalg.vector_norm(queries, dim=1, keepdim=True)
        self._length = (length > 0).float() if metric == "cosine" else length
        self._columns = queries * inverse(length) if metric == "cosine" else queries

    def group_max(self, group: int) -> Tensor:
        best = torch.empty((self.Q, -(-self.N // group)), device=self._store.device, dtype=torch.float32)
        step = _ROWS[kind(self._store.device)]
        if is_gpu(self._store.device):
            step = min(step, max(1, _SCORES // (_STEP * max(1, self.Q))) * _STEP)

        def one_block(start: int, stop: int) -> None:
            best[:, start // group : -(-stop // group)] = max_of_groups(self._scores(start, stop), group)

        if not is_gpu(self._store.device):
            map_blocks(one_block, self.N, step)
        else:
            for start in range(0, self.N, step):
                one_block(start, min(start + step, self.N))
        return best

    def _scores(self, start: int, stop: int) -> Tensor:
        """(stop - start, Q)"""
        scores = matrix_product(torch.matmul, self._rows(start, stop), self._columns.T)
        if self._metric != "ip":
            norms = self._norms()[start:stop, None]
            if self._metric == "cosine":
                scores *= inverse(norms)
            else:  # q.x - |x|^2 / 2; `ceiling` adds the rest
                scores.addcmul_(norms, norms, value=-0.5)
        if self._mask is not None:
            scores.masked_fill_(~self._mask[start:stop, None], float("-inf"))
        return scores

    def _rows(self, start: int, stop: int) -> Tensor:
        """(stop - start, D) float32"""
        return self._store[start:stop].float()

    def ceiling(self, estimate: Tensor) -> Tensor:
        """The estimate plus D roundings of its size, the most by which a sum of D products is off."""
        D = self._queries.shape[1]
        error = (D + 8) * 2.0**-22 if products_are_float32(self._store.device) else 2.0**-6
        hidden: Tensor = error * self._length
        if self._metric == "l2":
            hidden = error * (self._length + self._norms().max()).square() - self._length.square()
            return torch.add(hidden, estimate, alpha=2)
        if self._metric == "ip":
            hidden = hidden * self._norms().max()
        return estimate + hidden

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        scores = rescore(self._queries[queries], self._store, ids, self._metric)
        return forbid(scores, ids, self._mask)

    def exact(self, queries: Tensor | None = None) -> Scorer:
        return Exhaustive(self if queries is None else self._of_some(queries), self._store.device)

    def one_pass(self, k: int) -> Attempted | None:
        """Estimate scores tile by tile, without a float32 copy of all rows. Without loops, of few rows."""
        if is_gpu(self._store.device):
            return None
        taken = closest_for(k, self.N)
        found = self._best_estimates(taken)
        if found is None and group_size(self.N, candidate_groups(k), GATHER_COST) == 1 and taken < self.N:
            found = topk(self.group_max(1), taken)  # otherwise every row would be scored exactly
        return None if found is None else of_estimates(self, found, k)

    def _best_estimates(self, taken: int) -> tuple[Tensor, Tensor] | None:
        """The best estimates and their rows; None without loops."""
        scale = inverse(self._norms()) if self._metric == "cosine" else None
        bias = self._norms().square().mul_(-0.5) if self._metric == "l2" else None
        of_rows = scale, bias, self._mask
        found = half_topk(self._store, self._columns, taken, of_rows)
        return product_topk(self._write, self.N, self._columns, taken, of_rows) if found is None else found

    def _write(self, start: int, stop: int, out: Tensor) -> None:
        out.copy_(self._store[start:stop])

    def _of_some(self, queries: Tensor) -> Scorer:
        return FloatScorer(self._store, self._norms, self._queries[queries], self._metric, self._mask)


def float_scorer(
    store: Tensor, norms: Callable[[], Tensor], queries: Tensor, metric: str, mask: Tensor | None
) -> Scorer:
    """The scorer of float rows."""
    return exact_in_a_graph(FloatScorer(store, norms, queries, metric, mask), store.device)


def are_kept(packed: Packed, D: int) -> bool:
    """Whether there are so few rows of D columns that `Packed.floats` keeps them for searches on this CPU."""
    return 0 < len(packed) * D <= KEPT and not is_gpu(packed.device) and type(packed.raw) is Tensor


def prepared_floats(
    packed: Packed, decode: Callable[[Tensor], Tensor], D: int, metric: str
) -> Prepared | None:
    """What a scorer of float rows (N, D), of which there are few, finds for few queries without a mask."""
    N = len(packed)
    if not are_kept(packed, D) or not bool(packed.norms.isfinite().all()):
        return None
    scale = inverse_norms(packed) if metric == "cosine" else None
    if scale is not None and not estimates_hold(scale, D):
        return None
    of_rows = scale, minus_squares(packed) if metric == "l2" else None
    reach = 1.0 if scale is not None else float(largest_norm(packed))
    few = float_few(packed.floats(decode), metric, of_rows, reach, closest_for, SOUND_SQUARES)
    return None if few is None else Prepared(only(few), [packed.data], N, D, torch.float32, metric == "l2")


def of_sound_rows(packed: Packed, mask: Tensor | None) -> tuple[Tensor | None, Callable[[], Tensor]]:
    """The mask of rows that are numbers and allowed, and the norms, 0 of the others."""
    sound = sound_rows(packed, "norms", lambda: packed.norms.isfinite())
    if sound is None:
        return mask, lambda: packed.norms
    return both(mask, sound), lambda: packed.norms.masked_fill(~sound, 0)
