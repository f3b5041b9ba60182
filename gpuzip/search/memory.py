"""Memory budgets of a search: how many queries to search at a time, and how many rows make a group."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from gpuzip._core.device import is_gpu
from gpuzip.ops._dispatch import loops_are_used

#: Bytes on a CPU for tables, group maxima and candidates of the queries searched at a time. Queries are cut
#: into chunks that fit. A single query takes what it needs, about 8 bytes per group of rows. Besides, each
#: CPU thread has tiles of some 20 MB, and a search of many queries by "l2" takes 4 bytes per row. The memory
#: of one chunk is freed before the next.
WORKSPACE = 128 << 20

#: The same budget on a GPU: the most, and as a share of its memory. Each chunk decodes all codes, so it has
#: as many queries as the scan has room for: 1,024 queries over 100 million rows with k = 100 take 2 GB. The
#: memory of the scan is freed before candidates are gathered, for fewer queries at a time. A search of many
#: queries takes another 256 MB, for decoded rows or scores of rows.
GPU_WORKSPACE, _GPU_SHARE = 2 << 30, 16

_MAX_GROUP = 1024
MORE_CANDIDATES = 16  # times as many candidates for a query that the first ones do not prove
_TILE = 128  # queries of a GPU's matrix product
CANDIDATE_BYTES = 40  # of workspace per candidate: id, score, and temporaries of scorers and topk


def workspace(device: torch.device) -> int:
    """The budget in bytes for the queries searched at a time on a device."""
    if not is_gpu(device):
        return WORKSPACE
    return min(GPU_WORKSPACE, torch.cuda.get_device_properties(device).total_memory // _GPU_SHARE)


def at_once(queries: int, fit: int) -> int:
    """How many queries to search at a time if `fit` of them fit in memory: even chunks of whole tiles.

    A partly filled tile costs as much as a full one, so only the last chunk may end in one.
    """
    if queries <= fit:
        return max(1, queries)
    tile = _TILE if fit >= _TILE else min(16, 1 << (max(1, fit).bit_length() - 1))
    fit = max(1, fit // tile * tile)
    even = -(-queries // -(-queries // fit))  # with the fewest chunks possible
    return min(fit, -(-even // tile) * tile)


def chunks(queries: int, step: int) -> list[slice]:
    """Slices of `step` queries; one, maybe empty, if there are none."""
    return [slice(a, min(a + step, queries)) for a in range(0, max(1, queries), step)]


def group_size(N: int, k: int, gather_cost: int = 1) -> int:
    """Rows per group: a power of two that balances N / group scores of groups against k * group of rows."""
    group = 1 << max(0, round(math.log2(math.sqrt(N / k / gather_cost) / 2))) if k < N else 1
    return 1 if 4 * k * group >= N else min(group, _MAX_GROUP)


@lru_cache(256)
def query_bytes(N: int, k: int, gather_cost: int = 1) -> int:
    """Bytes of workspace that one query takes in `best`."""
    groups = candidate_groups(k)
    group = group_size(N, groups, gather_cost)
    return CANDIDATE_BYTES * N if group == 1 else 8 * (N // group) + CANDIDATE_BYTES * groups * group


def scan_bytes(N: int, k: int, gather_cost: int = 1, score_bytes: int = 4, wider: bool = False) -> int:
    """Bytes of workspace that one query takes in `attempt` on a GPU before candidates are gathered.

    That is one score per group, of score_bytes each during the scan, and the copies in topk: the best of
    every 32 scores, the members of those it takes, and its result.
    """
    groups = candidate_groups(k)
    group = group_size(N, groups, gather_cost)
    if group == 1:
        return CANDIDATE_BYTES * N
    scores, taken = -(-N // group), MORE_CANDIDATES * groups if wider else groups
    return max(score_bytes * scores, 4 * scores + 8 * min(scores, scores // 32 + 40 * taken))


def scorer_bytes_without_tables(width: int, code_size: int, by_tables: int) -> int:
    """Bytes of a scorer per query in a first stage by products of decoded rows, or by tables of nibbles.

    by_tables: where loops do not run, tables of whole bytes.
    """
    return 8 * width + 256 * code_size if loops_are_used() else by_tables


def candidate_groups(k: int) -> int:
    return 4 * k + 16


def wider_bytes(N: int, k: int, gather_cost: int = 1) -> int:
    """Bytes of workspace that one query takes in a later stage, which takes many more candidates."""
    groups = candidate_groups(k)
    return MORE_CANDIDATES * CANDIDATE_BYTES * groups * group_size(N, groups, gather_cost)
