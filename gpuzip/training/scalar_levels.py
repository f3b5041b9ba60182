"""Levels of a scalar quantizer with least squared error: k-means of sorted numbers.

A cell of the best quantizer is an interval, so a solution is K - 1 cuts of the sorted values. Sums over cells
are differences of prefix sums, so an iteration of Lloyd looks up K - 1 values, however many there are. The
start is the best choice of cuts among some hundred places, by dynamic programming. If there are no more
distinct values than places, the start is the optimum. Otherwise it is the optimum over bins, which the
iterations refine.
Source: Lloyd 1957; Max 1960; Wang and Song, "Ckmeans.1d.dp", 2011.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Floats = np.ndarray[Any, np.dtype[np.float64]]
Whole = np.ndarray[Any, np.dtype[np.int64]]

_PLACES, _MOST_PLACES = 256, 1024  # places for cuts: 8 per level, within these limits
_WORK = 1 << 29  # most steps of all dynamic programs together
_BLOCK = 64  # places
_HALVINGS = 64
_EXCHANGES, _FEW_ITERATIONS = 6, 10
_ITERATIONS, _TOLERANCE = 500, 1e-8


def optimal_levels(values: Tensor, K: int) -> Tensor:
    """(C, n) float32, finite, n >= 1 -> (C, K) float32: ascending levels per row of values.

    If there are fewer than K distinct values, they are the levels, the largest one repeated. The squared
    error is a local optimum. The result is deterministic.
    """
    values = _sorted(values)
    sums = torch.nn.functional.pad(values.cumsum(1, dtype=torch.float64), (1, 0))  # [C, n + 1]
    few, places = _programmed(K, len(values))
    starts = [_start(row, total, few, places) for row, total in zip(values, sums, strict=True)]
    cuts = _grown(values, sums, torch.stack(starts), K)
    _, levels = _iterated(values, sums, cuts, _ITERATIONS)
    return levels.float().sort(1).values


def _sorted(values: Tensor) -> Tensor:
    if values.device.type == "cpu":  # numpy sorts in vector registers
        return torch.from_numpy(np.sort(values.contiguous().numpy(), axis=1))
    return values.sort(1).values


def _programmed(K: int, C: int) -> tuple[int, int]:
    """Levels and places of C dynamic programs that take at most _WORK steps; K is halved until they do."""
    while True:
        places = min(_MOST_PLACES, max(_PLACES, 8 * K))
        while places > 4 * K and C * K * places**2 > _WORK:
            places //= 2
        if K == 2 or C * K * places**2 <= _WORK:
            return K, places
        K //= 2


def _start(values: Tensor, sums: Tensor, K: int, places: int) -> Tensor:
    """Cuts of one row, (K + 1,) int64 from 0 to n: cell k holds values[cuts[k] : cuts[k + 1]]."""
    n = len(values)
    changes = 1 + (values[1:] != values[:-1]).nonzero()[:, 0]
    edges = torch.cat([changes.new_zeros(1), changes, changes.new_full((1,), n)])
    if len(changes) < K:
        return torch.nn.functional.pad(edges, (0, K + 1 - len(edges)), value=n)
    if len(changes) >= places:
        edges = _spread(values, places)
    return edges[_best_cuts(sums[edges], edges, K)]


def _grown(values: Tensor, sums: Tensor, cuts: Tensor, K: int) -> Tensor:
    """Cuts into K cells from cuts into fewer cells: the heaviest cells are halved, then Lloyd moves the cuts.

    At the end some cells are halved and as many cuts of least use removed, which moves levels across others.
    Source: splitting as in Linde, Buzo, Gray, "An algorithm for vector quantizer design", 1980.
    """
    if cuts.shape[1] == K + 1:
        return cuts
    while cuts.shape[1] <= K:
        more = _halved(values, cuts, min(K + 1 - cuts.shape[1], cuts.shape[1] // 2))
        cuts = _iterated(values, sums, more, _FEW_ITERATIONS)[0]
    for _ in range(_EXCHANGES):
        more = _iterated(values, sums, _halved(values, cuts, K // 8), _FEW_ITERATIONS)[0]
        cuts = _iterated(values, sums, _without_least(sums, more, K), _FEW_ITERATIONS)[0]
    return cuts


def _halved(values: Tensor, cuts: Tensor, count: int) -> Tensor:
    """Cuts after halving the `count` heaviest cells of each row."""
    last = values.shape[1] - 1
    low, high = (
        values.gather(1, cuts[:, :-1].clamp(max=last)),
        values.gather(1, (cuts[:, 1:] - 1).clamp(min=0)),
    )
    weight = torch.where(cuts.diff() > 1, cuts.diff() * (high - low).double().square(), -1)
    heavy = weight.topk(count, 1).indices
    middle = (low.double() + high) / 2
    halves = torch.searchsorted(values, middle.gather(1, heavy).float(), right=True)
    return torch.cat([cuts, halves], 1).sort(1).values


def _without_least(sums: Tensor, cuts: Tensor, K: int) -> Tensor:
    """K + 1 of the cuts: without those whose removal adds the least error."""
    counts = cuts.diff().double().clamp(min=1e-9)
    means, left, right = sums.gather(1, cuts).diff() / counts, counts[:, :-1], counts[:, 1:]
    cost = means.diff().square() * left * right / (left + right)
    kept = cost.topk(K - 1, 1).indices + 1
    return torch.cat([cuts[:, :1], cuts.gather(1, kept.sort(1).values), cuts[:, -1:]], 1)


def _spread(values: Tensor, count: int) -> Tensor:
    """About `count` places where a good quantizer might cut, each between two different values.

    First at equal shares of the values. Then parts that weigh more than their share are halved, which also
    places cuts around a few values far from all others.
    """
    n = len(values)
    edges = torch.linspace(0, n, count // 4, device=values.device, dtype=torch.float64).long()
    edges = _between_values(values, edges)
    for _ in range(_HALVINGS):
        weight = _weights(values, edges)
        heavy = (weight > 2 * weight.sum() / count).nonzero()[:, 0]
        heavy = heavy[weight[heavy].argsort(descending=True, stable=True)[: count - len(edges)]]
        if len(heavy) == 0:
            break
        low, high = values[edges[heavy]].double(), values[edges[heavy + 1] - 1].double()
        halves = torch.searchsorted(values, ((low + high) / 2).float(), right=True)
        edges = _between_values(values, torch.cat([edges, halves]))
    return edges


def _between_values(values: Tensor, cuts: Tensor) -> Tensor:
    """Cuts moved to the first of equal values, sorted, without repeats, with both ends."""
    ends = cuts.new_tensor([0, len(values)])
    inner = torch.searchsorted(values, values[cuts.clamp(max=len(values) - 1)])
    distinct: Tensor = torch.cat([ends, inner]).unique()
    return distinct


def _weights(values: Tensor, edges: Tensor) -> Tensor:
    """(P - 1,) float64: share of levels per part, the cube root of its count times its squared width.

    Source: Panter and Dite 1951: the density of levels is the cube root of the density of values.
    """
    return _root(edges.diff(), values[edges[1:] - 1].double() - values[edges[:-1]].double())


def _root(counts: Tensor, widths: Tensor) -> Tensor:
    return (counts * widths.square()).pow_(1 / 3)


def _best_cuts(sums: Tensor, edges: Tensor, K: int) -> Tensor:
    """Indices of the K + 1 edges that cut values into cells of least squared error.

    edges: (P,). sums: (P,), the sums of the values before them. The error is least where the total of
    (sum of a cell)^2 / (its count) is greatest.
    """
    before_edge, places = sums.cpu().numpy(), edges.cpu().numpy()
    count = (places[:, None] - places[None]).astype(np.float64)  # [j, i] of the cell from i to j
    gain = np.square(before_edge[:, None] - before_edge[None])
    gain = np.divide(gain, count, out=np.full_like(gain, -np.inf), where=count > 0)
    best, before = gain[:, 0].copy(), []
    for _ in range(K - 1):
        best, i = _next_cell(gain, best)
        before.append(i)
    cuts = [len(places) - 1]
    for i in reversed(before):
        cuts.append(int(i[cuts[-1]]))
    return torch.tensor([0, *cuts[::-1]], device=edges.device)


def _next_cell(gain: Floats, best: Floats) -> tuple[Floats, Whole]:
    """Per edge j the greatest gain[j, i] + best[i], and the least i that has it.

    The best i never falls as j grows, so that those of every _BLOCK-th edge bound those between.
    """
    P = len(best)
    firsts = np.arange(0, P, _BLOCK)
    lows = (gain[firsts] + best).argmax(1)
    most, at = np.empty_like(best), np.empty(P, np.int64)
    for first, low, high in zip(firsts, lows, [*lows[1:], P - 1], strict=True):
        rows = slice(first, first + _BLOCK)
        total = gain[rows, low : high + 1] + best[low : high + 1]
        at[rows], most[rows] = low + total.argmax(1), total.max(1)
    return most, at


def _iterated(values: Tensor, sums: Tensor, cuts: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """At most `limit` iterations of Lloyd: cuts (C, K + 1) and levels (C, K) float64."""
    levels = _means(sums, cuts, None)
    gain = torch.full_like(levels[:, 0], -torch.inf)
    for _ in range(limit):
        ends = ((levels[:, 1:] + levels[:, :-1]) / 2).float()
        inner = torch.searchsorted(values, ends, right=True)
        cuts = torch.cat([cuts[:, :1], inner, cuts[:, -1:]], 1)
        levels, before = _means(sums, cuts, levels), gain
        gain = (cuts.diff() * levels.square()).sum(1)
        if bool((gain - before <= _TOLERANCE * gain.abs()).all()):
            break
    return cuts, levels


def _means(sums: Tensor, cuts: Tensor, levels: Tensor | None) -> Tensor:
    """Mean per cell, (C, K) float64. An empty cell keeps its level, or takes that of the cell before it."""
    counts = cuts.diff().double()
    means = sums.gather(1, cuts).diff() / counts
    if levels is not None:
        return torch.where(counts > 0, means, levels)
    last = (counts > 0).long().mul(torch.arange(cuts.shape[1] - 1, device=cuts.device)).cummax(1).values
    return means.gather(1, last)
