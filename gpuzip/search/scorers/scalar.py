"""Scores of scalar codes: int8 products find candidates, and decoded rows score them exactly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.device import is_gpu, kind
from gpuzip._core.planes import Unchanged
from gpuzip._core.rows import BLOCK_BYTES, SOUND_SQUARES
from gpuzip.ops import rescore, rescore_codes, scalar_scan, unpack_bits
from gpuzip.ops.candidates import closest
from gpuzip.ops.few import Few, only, scalar_few, searched
from gpuzip.ops.one_pass import can_multiply, multiplies_many_bytes, product_topk, scalar_best
from gpuzip.ops.row_writers import step_rows
from gpuzip.ops.scalar_query import Weights, weights
from gpuzip.search.memory import candidate_groups, group_size
from gpuzip.search.packed import Packed
from gpuzip.search.prepared import MOST_QUERIES, Prepared
from gpuzip.search.scorer import ALL, Attempted, Exhaustive, Scorer
from gpuzip.search.scorers.common import (
    GATHER_COST,
    closest_for,
    estimates_for,
    forbid,
    inverse,
    inverse_norms,
    minus_squares,
    normalized,
    proven,
)

#: Fewer rows are scored by tables: on a GPU exactly, which takes little time.
FEWEST_ROWS = {"cpu": 64, "cuda": 4096}
# More queries, of fewer rows, are scored by products of floats, which need fewer exact scores.
_FEW_QUERIES, _FEW_ROWS = 16, 4096
_ROWS = {"cpu": 1 << 16, "cuda": 1 << 22}  # rows made unsigned at a time; every group size divides these


@dataclass(frozen=True)
class Coding:
    """How codes map to values: start + (code + 0.5) * step, with start and step (D,).

    flip: (1, B) uint8, which xor-ed to signed codes makes them unsigned. centroids: (D, 2**bits, 1), the
    values of codes as stored; None for codes of one byte. middle: (D,) float64, the middle of the range.
    bounds: (), the norm of the largest possible values. first: (D,), the values of code 0 as stored.
    """

    bits: int
    start: Tensor
    step: Tensor
    centroids: Tensor | None
    flip: Tensor | None
    middle: Tensor
    bounds: Tensor
    first: Tensor


def coding_of(
    bits: int, start: Tensor, step: Tensor, centroids: Tensor | None, flip: Tensor | None
) -> Coding:
    middle = start.double() + ((1 << (bits - 1)) + 0.5) * step.double()
    bounds = torch.linalg.vector_norm(torch.maximum(start.abs(), (start + (1 << bits) * step).abs()))
    first = start + 0.5 * step
    if flip is not None:  # two's complement
        first = first + 128 * step
    return Coding(bits, start, step.contiguous(), centroids, flip, middle, bounds, first)


class ScalarScorer:
    """Estimates scores by products of codes with queries in int8.

    A decoded value is first + step * code, so q.x = q.first + sum w code with w = q * step. w is rounded to
    s * int8. The error is bounded by the norm of the rounding times the norm of the codes about their middle.

    mask: (N,) bool or None.
    """

    is_exact = False
    gather_cost = GATHER_COST

    def __init__(
        self, packed: Packed, coding: Coding, queries: Tensor, metric: str, mask: Tensor | None
    ) -> None:
        self._packed, self._coding, self._queries, self._metric = packed, coding, queries, metric
        self._mask, self.N, self.Q = mask, len(packed), len(queries)
        self._middle = 1 << (coding.bits - 1)
        self._scale = inverse_norms(packed) if metric == "cosine" else None

    @cached_property
    def _weights(self) -> Weights:
        coding = self._coding
        return weights(self._queries, coding.step, coding.middle, self._middle, self._metric == "cosine")

    def group_max(self, group: int) -> Tensor:
        scale, (bias, unit, offset) = self._scale, self._terms()
        parts = []
        for rows, data in self._unsigned():
            of_rows = [None if column is None else column[rows] for column in (scale, bias, self._mask)]
            of_queries, bits = (self._weights.whole, unit, offset), self._coding.bits
            parts.append(scalar_scan(data, *of_queries, of_rows[0], of_rows[1], of_rows[2], bits, group))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _unsigned(self) -> Iterator[tuple[slice, Tensor]]:
        """Slices of rows and their unsigned codes: one slice, or blocks if codes are signed."""
        data, flip = self._packed.data, self._coding.flip
        step = len(data) if flip is None else _ROWS[kind(data.device)]
        for start in range(0, len(data), step):
            rows = slice(start, start + step)
            yield rows, data[rows] if flip is None else data[rows] ^ flip

    def ceiling(self, estimate: Tensor) -> Tensor:
        """Adds the largest possible error of rounding weights, decoded values and float32 sums.

        |sum (w - s w') code| is at most |w - s w'| |code - middle|, as the middle is in the offset exactly. A
        sum of D products is off by at most D roundings of the sum of their sizes.
        """
        facts = (*self._packed.remembered("spread", self._spread), self._coding.bounds)
        slack: Tensor = self._slack((self._weights.hidden, self._weights.norm, self._weights.offset), facts)
        return torch.where(estimate.isneginf(), estimate, estimate + slack[:, None])

    def _slack(self, of_queries: Sequence[Any], facts: Sequence[Any]) -> Any:
        """What `ceiling` adds, (Q,): of tensors or arrays (Q,) of queries, and single values of the codes."""
        (hidden, norm, offset), (spread, per_norm, largest, over, bounds) = of_queries, facts
        D = self._queries.shape[1]
        steps = 2.0**-22 * (norm * bounds + 2 * abs(offset))
        if self._metric == "cosine":
            return hidden * per_norm + D * 2.0**-22 + steps * over
        slack = hidden * spread + D * 2.0**-22 * norm * largest + steps
        if self._metric == "ip":
            return slack
        return 2 * slack + (D + 8) * 2.0**-22 * (norm + largest) ** 2 - norm * norm

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        data, coding, asked = self._packed.data, self._coding, self._queries[queries]
        if coding.centroids is None:
            stored = data if coding.flip is None else data.view(torch.int8)  # two's complement
            scores = rescore(asked, stored, ids, self._metric, coding.first, coding.step)
        else:
            scores = rescore_codes(asked, data, coding.centroids, ids, self._metric)
        return forbid(scores, ids, self._mask)

    def exact(self, queries: Tensor | None = None) -> Scorer:
        if queries is None:
            return Exhaustive(self, self._packed.device)
        scorer = ScalarScorer(self._packed, self._coding, self._queries[queries], self._metric, self._mask)
        return Exhaustive(scorer, self._packed.device)

    def one_pass(self, k: int) -> Attempted | None:
        """Take the rows with the best estimates, score them exactly, and see whether others may be better."""
        if (found_at_once := self._in_one_call(k)) is not None:
            return found_at_once
        coding, taken = self._coding, estimates_for(k, self.N)
        by_product = self.Q > _FEW_QUERIES and self.N < _FEW_ROWS and not multiplies_many_bytes()
        if by_product and (close := self._by_product(k)) is not None:
            return close
        is_few = group_size(self.N, candidate_groups(k), GATHER_COST) > 1  # else all rows would be scored
        if coding.bits != 8 or taken == self.N:
            return None
        bias, unit, offset = self._terms()
        of_codes = 0 if coding.flip is None else 128, coding.first, coding.step
        of_queries, of_rows = (self._weights.whole, unit, offset), (self._scale, bias, self._mask)
        asked = self._queries.contiguous(), self._metric

        def slack() -> Any:
            of_queries = [
                part.numpy() for part in (self._weights.hidden, self._weights.norm, self._weights.offset)
            ]
            return self._slack(of_queries, self.facts())

        found = scalar_best(
            (self._packed.data, *of_codes),
            asked,
            of_queries,
            of_rows,
            k,
            taken,
            is_few,
            slack,
        )
        if found is None:
            return None
        scores, rows, last = found
        unsure = (scores[:, -1] <= last + slack()) & (last > -np.inf)  # else no other row is left
        proven = None if not unsure.any() else torch.from_numpy(unsure)
        return torch.from_numpy(scores), torch.from_numpy(rows), proven

    def _in_one_call(self, k: int) -> Attempted | None:
        """Search many queries by what searches few, where that is the fastest."""
        may_be = self._mask is None and self.Q > MOST_QUERIES and not is_gpu(self._packed.device)
        if not may_be or not multiplies_many_bytes():
            return None
        few = _few(self._packed, self._coding, self._metric)
        if few is None or not few.can_search(self.Q, k):
            return None
        return proven(searched(few, self._queries.contiguous(), self.Q, k))

    def _by_product(self, k: int) -> Attempted | None:
        """Estimate scores by float32 products of decoded rows."""
        coding, queries, bias = self._coding, self._queries, self._terms()[0]
        if coding.bits != 8 or not can_multiply(queries, self.N):
            return None
        queries = normalized(queries) if self._metric == "cosine" else queries
        queries = 2 * queries if self._metric == "l2" else queries
        write = step_rows(self._packed.data, coding.start, coding.step, 0 if coding.flip is None else 128)
        of_rows = self._scale, bias, self._mask
        found = product_topk(write, self.N, queries, closest_for(k, self.N), of_rows)
        if found is None:
            return None
        zeros, facts = torch.zeros_like(self._weights.norm), self._packed.remembered("spread", self._spread)
        slack = self._slack((zeros, self._weights.norm, zeros), (*facts, coding.bounds))
        return closest(*found, found[0] + slack[:, None], k, self.N, self.gather)

    def facts(self) -> tuple[float, ...]:
        """What `_slack` takes of the codes."""

        def found() -> tuple[float, ...]:
            return *map(float, self._packed.remembered("spread", self._spread)), float(self._coding.bounds)

        facts: tuple[float, ...] = self._packed.remembered("spread as floats", found)
        return facts

    def columns_of_rows(self) -> tuple[Tensor | None, Tensor | None]:
        """Scale and bias of rows, (N,) or None."""
        return self._scale, self._terms()[0]

    def _terms(self) -> tuple[Tensor | None, Tensor, Tensor]:
        """Bias of rows, unit and offset of queries; for "l2" of 2 q.x - |x|^2, `ceiling` adds the rest."""
        if self._metric == "l2":
            return minus_squares(self._packed), 2 * self._weights.unit, 2 * self._weights.offset
        return None, self._weights.unit, self._weights.offset

    def _spread(self) -> tuple[Tensor, ...]:
        """Largest over rows of |code - middle|, of that over the norm, of the norm, and of its inverse."""
        packed, D = self._packed, self._queries.shape[1]
        largest = [torch.zeros((), device=packed.device, dtype=torch.float32)] * 4
        step = max(1, BLOCK_BYTES // (4 * D))
        for rows, data in self._unsigned():
            for part, norms in zip(data.split(step), packed.norms[rows].split(step), strict=True):
                values = unpack_bits(part, D, self._coding.bits).float() - self._middle
                spread, over = torch.linalg.vector_norm(values, dim=1) * 1.001, inverse(norms)
                here = spread, spread * over, norms, over
                largest = [torch.maximum(most, new.max()) for most, new in zip(largest, here, strict=True)]
        return tuple(largest)


def prepared_scalar(packed: Packed, coding: Coding, metric: str) -> Prepared | None:
    """What `ScalarScorer` finds for few queries without a mask, of codes that were searched before."""
    few, D = _few(packed, coding, metric), len(coding.start)
    if few is None:
        return None
    return Prepared(only(few), [packed.data], len(packed), D, torch.float32, metric == "l2")


def _few(packed: Packed, coding: Coding, metric: str) -> Few | None:
    """A search by codes of one byte, not flipped, which keeps what it needs of them."""
    if coding.bits != 8 or coding.flip is not None:
        return None

    def found() -> tuple[Unchanged, Few | None]:
        unchanged = Unchanged([packed.data])
        scorer = ScalarScorer(packed, coding, coding.start.new_zeros((1, len(coding.start))), metric, None)
        of_rows = scorer.columns_of_rows()
        codes, values = packed.data, (coding.first, coding.step, coding.middle)
        few = scalar_few(codes, values, metric, scorer.facts(), of_rows, estimates_for, SOUND_SQUARES)
        return unchanged, few

    unchanged, few = packed.remembered(f"search in one call by {metric}", found)
    return few if unchanged() else None
