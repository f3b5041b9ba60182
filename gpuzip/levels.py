"""Levels of a scalar quantizer with the least squared error: k-means of sorted numbers.

A cell of the best quantizer is an interval, so a solution is K - 1 cuts of the sorted values, and sums over
cells are differences of prefix sums: an iteration of Lloyd looks up K - 1 values, whatever their number. It
starts from the best cuts among at most some hundred places, found by dynamic programming. With no more
distinct values than places that start is the optimum; else it is that of bins, which the iterations refine.
Source: Lloyd 1957; Max 1960; Wang and Song, "Ckmeans.1d.dp", 2011; Panter and Dite 1951.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_PLACES, _MOST_PLACES = 256, 1024  # that cuts may have in the start, if a level has fewer than 8 of them
_WORK = 1 << 29  # steps of the dynamic programs of all rows together
_HALVINGS = 64
_ITERATIONS, _TOLERANCE = 500, 1e-8


def optimal_levels(values: Tensor, K: int) -> Tensor:
    """(C, n) float32, finite, n >= 1 -> (C, K) float32, ascending: levels for each row of values.

    Fewer than K distinct values are levels themselves, the largest repeated. The mean squared error is a
    local optimum, as near the least as a start over bins leads. Deterministic.
    """
    values = _sorted(values)
    middle = values.double().mean(1, keepdim=True)
    sums = torch.nn.functional.pad((values.double() - middle).cumsum_(1), (1, 0))  # [C, n + 1]
    places = _places(K, len(values))
    cuts = [_start(row, total, K, places) for row, total in zip(values, sums, strict=True)]
    return _iterated(values, sums, middle, torch.stack(cuts))


def _sorted(values: Tensor) -> Tensor:
    if values.device.type == "cpu":  # numpy sorts in vector registers
        return torch.from_numpy(np.sort(values.contiguous().numpy(), axis=1))
    return values.sort(1).values


def _places(K: int, C: int) -> int:
    """How many a row may have; 0 where its dynamic program would take too long."""
    places = min(_MOST_PLACES, max(_PLACES, 8 * K))
    while places >= 4 * K:
        if C * K * places**2 <= _WORK:
            return places
        places //= 2
    return 0


def _start(values: Tensor, sums: Tensor, K: int, places: int) -> Tensor:
    """Cuts of one row, (K + 1,) int64 from 0 to n: cell k holds values[cuts[k] : cuts[k + 1]]."""
    n = len(values)
    changes = 1 + (values[1:] != values[:-1]).nonzero()[:, 0]
    edges = torch.cat([changes.new_zeros(1), changes, changes.new_full((1,), n)])
    if len(changes) < K:
        return torch.nn.functional.pad(edges, (0, K + 1 - len(edges)), value=n)
    if len(changes) >= places:
        edges = _spread(values, places or _MOST_PLACES)
    return edges[_best_cuts(sums[edges], edges, K) if places else _companded(values, edges, K)]


def _spread(values: Tensor, count: int) -> Tensor:
    """About `count` places where a good quantizer of so many levels would cut, each between two values.

    Equal shares of the values; then the widest of what is between them is halved, until no part weighs more
    than its share: that finds a few values far from all others.
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
    """Cuts moved down to the first of equal values, in order, once each, with both ends."""
    ends = cuts.new_tensor([0, len(values)])
    inner = torch.searchsorted(values, values[cuts.clamp(max=len(values) - 1)])
    distinct: Tensor = torch.cat([ends, inner]).unique()
    return distinct


def _weights(values: Tensor, edges: Tensor) -> Tensor:
    """(P - 1,) float64: how many levels a part is worth: the cube root of its count times its width squared.

    Panter and Dite: levels lie as the cube root of the density.
    """
    return _root(edges.diff(), values[edges[1:] - 1].double() - values[edges[:-1]].double())


def _root(counts: Tensor, widths: Tensor) -> Tensor:
    return (counts * widths.square()).pow_(1 / 3)


def _best_cuts(sums: Tensor, edges: Tensor, K: int) -> Tensor:
    """Which K + 1 of the edges, (P,) with the sums up to them, cut values into cells of least squared error.

    That is where the sum of (sum of a cell)^2 / (its count) is greatest.
    """
    count = (edges[None] - edges[:, None]).double()  # [i, j] of the cell from i to j
    gain = (sums[None] - sums[:, None]).square_().div_(count).masked_fill_(count <= 0, -torch.inf)
    best, before = gain[0], []
    for _ in range(K - 1):
        best, i = (best[:, None] + gain).max(0)
        before.append(i)
    cuts = [len(edges) - 1]
    for i in reversed(before):
        cuts.append(int(i[cuts[-1]]))
    return torch.tensor([0, *cuts[::-1]], device=edges.device)


def _companded(values: Tensor, edges: Tensor, K: int) -> Tensor:
    """Which K + 1 of the edges cut values into cells of about the same weight, gaps between parts included."""
    to_next = values[edges.clamp(max=len(values) - 1)].double().diff()
    reach = _root(edges.diff(), to_next).cumsum_(0)
    shares = reach[-1] * torch.arange(1, K, device=values.device) / K
    inner = torch.searchsorted(reach, shares)
    rank, last = torch.arange(1, K, device=edges.device), len(edges) - 1
    distinct = ((inner - rank).cummax(0).values + rank).clamp(min=rank).minimum(last - K + rank)
    return torch.nn.functional.pad(torch.nn.functional.pad(distinct, (1, 0)), (0, 1), value=last)


def _iterated(values: Tensor, sums: Tensor, middle: Tensor, cuts: Tensor) -> Tensor:
    levels = _means(sums, cuts, None)
    gain = torch.full_like(levels[:, 0], -torch.inf)
    for _ in range(_ITERATIONS):
        ends = ((levels[:, 1:] + levels[:, :-1]) / 2 + middle).float()
        inner = torch.searchsorted(values, ends, right=True)
        cuts = torch.cat([cuts[:, :1], inner, cuts[:, -1:]], 1)
        levels, before = _means(sums, cuts, levels), gain
        counts = cuts.diff().double()
        gain = (counts * levels.square()).sum(1)
        if bool((gain - before <= _TOLERANCE * gain.abs()).all()):
            break
    return (levels + middle).float().sort(1).values


def _means(sums: Tensor, cuts: Tensor, levels: Tensor | None) -> Tensor:
    """Of each cell, (C, K) float64. An empty cell keeps its level, or takes that of its neighbour."""
    counts = cuts.diff().double()
    means = sums.gather(1, cuts).diff() / counts
    if levels is not None:
        return torch.where(counts > 0, means, levels)
    last = (counts > 0).long().mul(torch.arange(cuts.shape[1] - 1, device=cuts.device)).cummax(1).values
    return means.gather(1, last)
