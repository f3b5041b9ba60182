"""Exact top-k over anything that can score rows: best of each group, then the best groups' members.

Scores are keys: greater is better. Fewer than k groups hold a key above the k-th best, so the k
best groups (lowest first among equals) hold the k best rows, and of equal rows the lowest ids. A
forbidden row has the key -inf, so with k allowed rows or more none is among the k best.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.ops import max_of_groups, topk
from gpuzip.rows import whole

Metric = Literal["l2", "ip", "cosine"]
METRICS: tuple[str, ...] = get_args(Metric)

#: Bytes that tables, group extrema and candidates of the queries searched at a time may take: queries
#: are cut into chunks that fit. One query alone uses what it needs, about 8 bytes for every group of
#: rows. On top come the tiles of each thread of a CPU, some 20 MB, and 4 bytes a row while many
#: queries are searched by "l2". What one chunk takes is free again before the next.
WORKSPACE = 128 << 20

_MAX_GROUP = 1024
_WIDER = 16  # times as many candidates, for a query whose first ones leave a doubt


class Scorer(Protocol):
    """Keys of N rows for Q queries, of which only small parts ever exist at a time.

    Finite, or -inf for a row that a mask forbids.
    """

    N: int
    Q: int
    is_exact: bool
    """Whether `group_max` gives the very keys of `gather`, to the bit."""
    gather_cost: int
    """How much longer a key takes to gather than by look-up tables, which is 1: groups are smaller for it."""

    def group_max(self, group: int) -> Tensor:
        """(Q, ceil(N / group)): the best key of each `group` consecutive rows, or an estimate of it."""

    def ceiling(self, estimate: Tensor) -> Tensor:
        """The greatest key that a group with this `group_max` can hold: (Q, 1) -> (Q, 1)."""

    def gather(self, ids: Tensor) -> Tensor:
        """The final keys of rows ids: (Q, R) int64 -> (Q, R)."""

    def exact(self, queries: Tensor) -> Scorer:
        """An exact scorer of some of the queries, named by index."""


def best(scorer: Scorer, k: int) -> tuple[Tensor, Tensor]:
    """The k best rows of every query: keys (Q, k), ids (Q, k); the lowest id first among equals.

    With fewer than k allowed rows, the last places hold -inf and any id.
    """
    if scorer.is_exact:
        return _best_exact(scorer, k)
    group = group_size(scorer.N, _candidate_groups(k), scorer.gather_cost)
    if group == 1:
        return _best_exact(scorer.exact(torch.arange(scorer.Q)), k)
    estimates, taken = scorer.group_max(group), _candidate_groups(k)
    values, groups = topk(estimates, taken + 1)
    keys, ids = _best_of_groups(scorer, groups[:, :taken], k, group)
    unsure = _unsure(keys, scorer.ceiling(values[:, -1:]))
    for some in unsure.split(_at_once(taken, group)) if len(unsure) else ():
        keys[some], ids[some] = _best_of_unsure(scorer, some, estimates, k, group)
    return keys, ids


def group_size(N: int, k: int, gather_cost: int = 1) -> int:
    """Rows a group: a power of two that balances N / group first keys against k * group second ones."""
    group = 1 << max(0, round(math.log2(math.sqrt(N / k / gather_cost) / 2))) if k < N else 1
    return 1 if 4 * k * group >= N else min(group, _MAX_GROUP)


def query_bytes(N: int, k: int, gather_cost: int = 1) -> int:
    """Workspace that one query takes in `best`, for a caller that cuts queries into chunks."""
    groups = _candidate_groups(k)
    group = group_size(N, groups, gather_cost)
    return 40 * N if group == 1 else 8 * (N // group) + 40 * groups * group


def _candidate_groups(k: int) -> int:
    return 4 * k + 16


def _best_exact(scorer: Scorer, k: int) -> tuple[Tensor, Tensor]:
    group = group_size(scorer.N, k, scorer.gather_cost)
    first = scorer.group_max(group)
    if group == 1:
        return topk(first, k)
    return _best_of_groups(scorer, topk(first, k)[1], k, group)


def _unsure(keys: Tensor, ceiling: Tensor) -> Tensor:
    """Queries of which a group that was not taken may hold a better row than the last key."""
    return (keys[:, -1:] <= ceiling)[:, 0].nonzero().view(-1)


def _best_of_unsure(
    scorer: Scorer, queries: Tensor, estimates: Tensor, k: int, group: int
) -> tuple[Tensor, Tensor]:
    """Of some queries: by many more groups, and where that leaves a doubt by all rows."""
    exact, taken = scorer.exact(queries), _WIDER * _candidate_groups(k)
    if 4 * taken * group >= scorer.N:
        return _best_exact(exact, k)
    values, groups = topk(estimates[queries], taken + 1)
    keys, ids = _best_of_groups(exact, groups[:, :taken], k, group)
    last = torch.zeros((scorer.Q, 1), device=keys.device).index_copy_(0, queries, values[:, -1:])
    left = _unsure(keys, scorer.ceiling(last)[queries])
    if len(left):
        keys[left], ids[left] = _best_exact(scorer.exact(queries[left]), k)
    return keys, ids


def _at_once(taken: int, group: int) -> int:
    """Queries whose many more candidates fit in the workspace."""
    return max(1, WORKSPACE // (40 * _WIDER * taken * group))


def _best_of_groups(scorer: Scorer, groups: Tensor, k: int, group: int) -> tuple[Tensor, Tensor]:
    first_ids = groups.sort(1).values * group  # ascending, so that position breaks ties as id does
    ids = (first_ids[:, :, None] + torch.arange(group, device=groups.device)).view(len(groups), -1)
    outside = ids >= scorer.N
    keys = scorer.gather(ids.clamp(max=scorer.N - 1)).masked_fill_(outside, float("-inf"))
    keys, at = topk(keys, k)
    return keys, torch.gather(ids, 1, at)


class Exhaustive:
    """Exact keys of every row by `gather`, a block at a time: for a scorer that has no faster exact scan."""

    is_exact = True

    def __init__(self, scorer: Scorer, device: torch.device) -> None:
        self._scorer, self._device, self.N, self.Q = scorer, device, scorer.N, scorer.Q
        self.gather_cost = scorer.gather_cost

    def group_max(self, group: int) -> Tensor:
        step = max(1, WORKSPACE // (64 * group * max(1, self.Q))) * group
        parts = []
        for start in range(0, self.N, step):
            ids = torch.arange(start, min(start + step, self.N), device=self._device)
            parts.append(max_of_groups(self._scorer.gather(ids.expand(self.Q, -1)).T, group))
        return torch.cat(parts, 1)

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def gather(self, ids: Tensor) -> Tensor:
        return self._scorer.gather(ids)

    def exact(self, queries: Tensor) -> Scorer:
        return self._scorer.exact(queries)


def check_mask(who: str, mask: Any, n: int, device: torch.device) -> Tensor:
    """A mask of n rows on `device`; an array has no device and is moved there."""
    if not isinstance(mask, Tensor | np.ndarray):
        raise DtypeError(
            f"{who}: mask came as {type(mask).__name__}, a torch tensor or numpy array is needed. "
            "Wrap it in torch.as_tensor."
        )
    if str(mask.dtype).removeprefix("torch.") != "bool":
        raise DtypeError(
            f"{who}: mask came as {str(mask.dtype).removeprefix('torch.')}, bool is needed, True for the "
            "rows that may be found. Compare it, for example mask != 0."
        )
    if tuple(mask.shape) != (n,):
        raise GpuzipError(f"{who}: mask came with shape {tuple(mask.shape)}, ({n},) is needed, one a row.")
    if isinstance(mask, Tensor):
        if mask.device != device:
            raise GpuzipError(
                f"{who}: mask came on {mask.device}, the codes are on {device}. Move it with .to()."
            )
        return mask
    return torch.from_numpy(np.ascontiguousarray(mask).copy()).to(device)


def check_metric(who: str, metric: str, known: tuple[str, ...] = METRICS) -> None:
    if metric not in known:
        raise GpuzipError(f"{who}: metric is {metric!r}, one of {', '.join(known)} is needed.")


def check_k(who: str, k: int, n: int) -> int:
    """k clamped to n rows; k below 1 is an error."""
    return min(whole(who, "k", k), n)
