"""Exact top-k over anything that can score rows: best of each group, then the best groups' members.

Scores are keys: greater is better. Fewer than k groups hold a key above the k-th best, so the k
best groups (lowest first among equals) hold the k best rows, and of equal rows the lowest ids. A
forbidden row has the key -inf, so with k allowed rows or more none is among the k best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from torch import Tensor

from gpuzip.capture import is_gpu
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.ops import max_of_groups, topk
from gpuzip.rows import whole

Metric = Literal["l2", "ip", "cosine"]
METRICS: tuple[str, ...] = get_args(Metric)

#: Bytes that tables, group extrema and candidates of the queries searched at a time may take on a CPU:
#: queries are cut into chunks that fit. One query alone uses what it needs, about 8 bytes for every group of
#: rows. On top come the tiles of each thread of a CPU, some 20 MB, and 4 bytes a row while many queries are
#: searched by "l2". What one chunk takes is free again before the next.
WORKSPACE = 128 << 20

#: The same on a GPU, at most, and as a share of its memory. A chunk decodes all codes, so that it has as many
#: queries as their scan has room for: 1,024 of them, of 100 million rows and k = 100, take 2 GB. What a scan
#: took is free before candidates are gathered, for fewer queries at a time. On top come 256 MB of decoded
#: rows, or of keys of rows, while many queries are searched.
GPU_WORKSPACE, _GPU_SHARE = 2 << 30, 16

_MAX_GROUP = 1024
_WIDER = 16  # times as many candidates, for a query whose first ones leave a doubt
_TILE = 128  # queries of a GPU's matrix product
_CANDIDATE = 40  # bytes of workspace: an id, its key, and what some scorers and topk make of them

ALL = slice(None)  # the queries of a scorer

#: How `attempt` looks for rows, each slower and surer than the one before; the last leaves no doubt.
ROADS = FIRST, WIDER, EXACT = range(3)


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
        """(Q, ceil(N / group)): the best key of each `group` consecutive rows, or an estimate of it.

        Estimates may have a scale of their own for each query, above 0, and a shift; `ceiling` knows them.
        """

    def ceiling(self, estimate: Tensor) -> Tensor:
        """The greatest key that a group with this `group_max` can hold: (Q, 1) -> (Q, 1)."""

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        """The final keys of rows ids for these queries: (Q', R) int64 -> (Q', R).

        -inf for ids that are no rows.
        """

    def exact(self, queries: Tensor | None = None) -> Scorer:
        """An exact scorer of some of the queries, named by index on their device, or of all."""


def best(scorer: Scorer, k: int) -> tuple[Tensor, Tensor]:
    """The k best rows of every query: keys (Q, k), ids (Q, k); the lowest id first among equals.

    With fewer than k allowed rows, the last places hold -inf and any id.
    """
    keys, ids, unsure = attempt(scorer, k, FIRST)
    if unsure is not None and len(some := unsure.nonzero().view(-1)):
        keys[some], ids[some] = _best_exact(scorer.exact(some), k)
    return keys, ids


def attempt(scorer: Scorer, k: int, road: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `best`, and of which queries it is unsure, (Q,) bool, or None: of none. Nothing waits for a GPU.

    road: of ROADS. A query is unsure where a group that was not taken may hold a better row than the last.
    """
    group, taken = group_size(scorer.N, _candidate_groups(k), scorer.gather_cost), _candidate_groups(k)
    if road == WIDER:
        taken *= _WIDER
        road = EXACT if 4 * taken * group >= scorer.N else road
    if scorer.is_exact or road == EXACT or group == 1:
        return *_best_exact(scorer if scorer.is_exact else scorer.exact(), k), None
    values, groups = topk(scorer.group_max(group), taken + 1)
    keys, ids = _best_of_groups(scorer, groups[:, :taken], k, group)
    return keys, ids, keys[:, -1] <= scorer.ceiling(values[:, -1:])[:, 0]


Attempt = Callable[[slice | Tensor, int], tuple[Tensor, Tensor, Tensor | None]]


def until_sure(attempt: Attempt, queries: int | Tensor, steps: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Keys and ids of all queries: chunk by chunk, then of the unsure ones again by the next road.

    attempt: some queries and a road -> as `attempt` above. queries: how many, or their numbers. steps: how
    many at a time, and by later roads. All chunks are launched before the first wait, which tells who is
    unsure: a GPU is waited for once a road that is taken, however many chunks there are.
    """
    chunks: Sequence[slice | Tensor]
    chunks = _chunks(queries, steps[0]) if isinstance(queries, int) else queries.split(steps[0])
    found = [attempt(some, FIRST) for some in chunks]
    keys, ids = _joined([part[0] for part in found]), _joined([part[1] for part in found])
    at = _unsure(found)  # of the queries
    for road in (WIDER, EXACT):
        if at is None or len(at) == 0:
            break
        again = at.split(steps[1])
        found = [attempt(some if isinstance(queries, int) else queries[some], road) for some in again]
        for some, part in zip(again, found, strict=True):
            keys[some], ids[some] = part[:2]
        unsure = _unsure(found)
        at = None if unsure is None else at[unsure]
    return keys, ids


def _unsure(found: list[tuple[Tensor, Tensor, Tensor | None]]) -> Tensor | None:
    """The numbers of the unsure ones among the queries of these chunks; None, without a wait, of none."""
    if all(unsure is None for _, _, unsure in found):
        return None
    of_chunks = [
        ids.new_zeros(len(ids), dtype=torch.bool) if unsure is None else unsure for _, ids, unsure in found
    ]
    return _joined(of_chunks).nonzero().view(-1)


def _chunks(queries: int, step: int) -> list[slice]:
    return [slice(a, min(a + step, queries)) for a in range(0, max(1, queries), step)]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def workspace(device: torch.device) -> int:
    """Bytes that the queries searched at a time may take on a device."""
    if not is_gpu(device):
        return WORKSPACE
    return min(GPU_WORKSPACE, torch.cuda.get_device_properties(device).total_memory // _GPU_SHARE)


def at_once(queries: int, fit: int) -> int:
    """How many queries to search at a time where `fit` fit: even chunks, of whole tiles where they can be.

    A chunk costs what its last tile would if it were full, so that all chunks but the last are whole.
    """
    if queries <= fit:
        return max(1, queries)
    tile = _TILE if fit >= _TILE else min(16, 1 << (max(1, fit).bit_length() - 1))
    fit = max(1, fit // tile * tile)
    even = -(-queries // -(-queries // fit))  # of as few chunks as there can be
    return min(fit, -(-even // tile) * tile)


def group_size(N: int, k: int, gather_cost: int = 1) -> int:
    """Rows a group: a power of two that balances N / group first keys against k * group second ones."""
    group = 1 << max(0, round(math.log2(math.sqrt(N / k / gather_cost) / 2))) if k < N else 1
    return 1 if 4 * k * group >= N else min(group, _MAX_GROUP)


def query_bytes(N: int, k: int, gather_cost: int = 1) -> int:
    """Workspace that one query takes in `best`, for a caller that cuts queries into chunks."""
    groups = _candidate_groups(k)
    group = group_size(N, groups, gather_cost)
    return _CANDIDATE * N if group == 1 else 8 * (N // group) + _CANDIDATE * groups * group


def scan_bytes(N: int, k: int, gather_cost: int = 1, key_bytes: int = 4, road: int = FIRST) -> int:
    """Workspace that one query takes in `attempt` on a GPU before candidates are gathered.

    These are a key for each group, of key_bytes while they are found, and the copies that topk makes of the
    best of every 32 keys, of the members of those it takes, and of what it returns.
    """
    groups = _candidate_groups(k)
    group = group_size(N, groups, gather_cost)
    if group == 1:
        return _CANDIDATE * N
    keys, taken = -(-N // group), groups if road == FIRST else _WIDER * groups
    return max(key_bytes * keys, 4 * keys + 8 * min(keys, keys // 32 + 40 * taken))


def _candidate_groups(k: int) -> int:
    return 4 * k + 16


def _best_exact(scorer: Scorer, k: int) -> tuple[Tensor, Tensor]:
    group = group_size(scorer.N, k, scorer.gather_cost)
    first = scorer.group_max(group)
    if group == 1:
        return topk(first, k)
    return _best_of_groups(scorer, topk(first, k)[1], k, group)


def wider_bytes(N: int, k: int, gather_cost: int = 1) -> int:
    """As `query_bytes`, of the roads after the first: where it doubts, a query takes many more candidates."""
    groups = _candidate_groups(k)
    return _WIDER * _CANDIDATE * groups * group_size(N, groups, gather_cost)


def _best_of_groups(scorer: Scorer, groups: Tensor, k: int, group: int) -> tuple[Tensor, Tensor]:
    """The k best rows of each query's groups, of as many queries at a time as the workspace has room for."""
    groups = groups.sort(1).values  # ascending, so that position breaks ties as id does
    places = torch.arange(group, device=groups.device)

    def of_some(queries: slice) -> tuple[Tensor, Tensor]:
        ids = torch.add(places, groups[queries, :, None], alpha=group).flatten(1)
        keys, at = topk(scorer.gather(ids, queries), k)
        return keys, torch.gather(ids, 1, at)

    fit = workspace(groups.device) // (_CANDIDATE * groups.shape[1] * group)
    found = [of_some(queries) for queries in _chunks(len(groups), at_once(len(groups), fit))]
    return _joined([keys for keys, _ in found]), _joined([ids for _, ids in found])


class Exhaustive:
    """Exact keys of every row by `gather`, a block at a time: for a scorer that has no faster exact scan."""

    is_exact = True

    def __init__(self, scorer: Scorer, device: torch.device) -> None:
        self._scorer, self._device, self.N, self.Q = scorer, device, scorer.N, scorer.Q
        self.gather_cost = scorer.gather_cost

    def group_max(self, group: int) -> Tensor:
        step = max(1, workspace(self._device) // (64 * group * max(1, self.Q))) * group
        parts = []
        for start in range(0, self.N, step):
            ids = torch.arange(start, min(start + step, self.N), device=self._device)
            parts.append(max_of_groups(self._scorer.gather(ids.expand(self.Q, -1)).T, group))
        return torch.cat(parts, 1)

    def ceiling(self, estimate: Tensor) -> Tensor:
        return estimate

    def gather(self, ids: Tensor, queries: slice = ALL) -> Tensor:
        return self._scorer.gather(ids, queries)

    def exact(self, queries: Tensor | None = None) -> Scorer:
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
