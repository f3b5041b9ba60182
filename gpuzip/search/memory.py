"""How many queries are searched at a time, and how many rows are scored together: what fits in memory."""

from __future__ import annotations

import math

import torch

from gpuzip._core.device import is_gpu

#: Bytes that tables, group extrema and candidates of the queries searched at a time may take on a CPU:
#: queries are cut into chunks that fit. One query alone uses what it needs, about 8 bytes for every group of
#: rows. On top come the tiles of each thread of a CPU, some 20 MB, and 4 bytes a row while many queries are
#: searched by "l2". What one chunk takes is free again before the next.
WORKSPACE = 128 << 20

#: The same on a GPU, at most, and as a share of its memory. A chunk decodes all codes, so that it has as many
#: queries as their scan has room for: 1,024 of them, of 100 million rows and k = 100, take 2 GB. What a scan
#: took is free before candidates are gathered, for fewer queries at a time. On top come 256 MB of decoded
#: rows, or of scores of rows, while many queries are searched.
GPU_WORKSPACE, _GPU_SHARE = 2 << 30, 16

_MAX_GROUP = 1024
MORE_CANDIDATES = 16  # times as many candidates, for a query whose first ones leave a doubt
_TILE = 128  # queries of a GPU's matrix product
CANDIDATE_BYTES = 40  # bytes of workspace: an id, its score, and what some scorers and topk make of them


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
    """Rows a group: a power of two that balances N / group first scores against k * group second ones."""
    group = 1 << max(0, round(math.log2(math.sqrt(N / k / gather_cost) / 2))) if k < N else 1
    return 1 if 4 * k * group >= N else min(group, _MAX_GROUP)


def query_bytes(N: int, k: int, gather_cost: int = 1) -> int:
    """Workspace that one query takes in `best`, for a caller that cuts queries into chunks."""
    groups = candidate_groups(k)
    group = group_size(N, groups, gather_cost)
    return CANDIDATE_BYTES * N if group == 1 else 8 * (N // group) + CANDIDATE_BYTES * groups * group


def scan_bytes(N: int, k: int, gather_cost: int = 1, score_bytes: int = 4, wider: bool = False) -> int:
    """Workspace that one query takes in `attempt` on a GPU before candidates are gathered.

    These are a score for each group, of score_bytes while they are found, and the copies that topk makes of
    the best of every 32 scores, of the members of those it takes, and of what it returns.
    """
    groups = candidate_groups(k)
    group = group_size(N, groups, gather_cost)
    if group == 1:
        return CANDIDATE_BYTES * N
    scores, taken = -(-N // group), MORE_CANDIDATES * groups if wider else groups
    return max(score_bytes * scores, 4 * scores + 8 * min(scores, scores // 32 + 40 * taken))


def candidate_groups(k: int) -> int:
    return 4 * k + 16


def wider_bytes(N: int, k: int, gather_cost: int = 1) -> int:
    """As `query_bytes`, for a query that an earlier stage left in doubt: it takes many more candidates."""
    groups = candidate_groups(k)
    return MORE_CANDIDATES * CANDIDATE_BYTES * groups * group_size(N, groups, gather_cost)
