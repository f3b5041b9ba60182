"""Viterbi's search of the trellis for _LANES rows at once, in the vectors of `_ways.py`."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import flat, local
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._ways import RESIDUES, WIDTH, copy_four, first_levels, least_of_ways, survivors

_LANES = 32
_BLOCK = 256  # rows per thread and turn
_MOST_STATES = 256
_total = local(_MOST_STATES * _LANES, np.float32)
_fresh = local(_MOST_STATES * _LANES, np.float32)
_into = local(2 * _MOST_STATES, np.uint16)
_state = local(_LANES, np.uint32)
_least = local(4 * _LANES, np.float32)
_picked = local(4 * _LANES, np.float32)
_base = local(_LANES, np.int32)


def trellis_quantize(y, costs, zero_costs, column_tables, before, branch, largest):
    """Run the operator: (N, C) float32 -> levels (N, C) int32 and sides (N, C) uint8."""
    N, C = y.shape
    levels = torch.empty((N, C), dtype=torch.int32, device="cpu")
    sides = torch.empty((N, C), dtype=torch.uint8, device="cpu")
    tables = (zero_costs, column_tables, before, branch)
    arguments = (_by_way(costs.numpy()), *(part.contiguous().numpy() for part in tables))
    rows, S = y.contiguous().numpy(), len(before)

    def some_rows(start, stop):
        own = (
            np.empty((C, _LANES), np.float32),
            np.empty((C, 4, _LANES), np.int32),
            np.empty((C, S, _LANES), np.uint8),
        )
        found = levels[start:stop].numpy(), sides[start:stop].numpy()
        _search(rows[start:stop], *arguments, np.float32(largest), *own, *found)

    map_blocks(some_rows, N, _BLOCK)
    return levels, sides


def _by_way(costs):
    """(T, K) -> (T, K, 4): the costs of the levels that the ways try from each first level on."""
    last = costs.shape[1] - 1
    first = np.arange(last + 1)[:, None]
    return np.ascontiguousarray(costs[:, np.minimum(first + ((np.array(RESIDUES) - first) & 3), last)])


@jit(
    "void(float32[:, ::1], float32[:, :, ::1], float32[::1], int32[::1], int32[:, ::1], int32[:, ::1], "
    "float32, float32[:, ::1], int32[:, :, ::1], uint8[:, :, ::1], int32[:, ::1], uint8[:, ::1])"
)
def _search(
    y, costs, zero_costs, tables, before, branch, largest, columns, chosen, took, levels, sides
):  # fmt: skip
    wide_vectors()
    total, fresh, least, base, picked = _total(), _fresh(), _least(), _base(), _picked()
    N, S = len(y), len(before)
    every_cost, every_level, every_taken = flat(costs), flat(chosen), flat(took)
    for first in range(0, N, _LANES):
        n = min(_LANES, N - first)
        _transposed(y, first, n, columns)
        for at in range(_LANES * S):
            total[at] = np.inf if at >= _LANES else 0
        for j in range(len(columns)):
            table = tables[j]
            start, last = np.int64(table) * 4 * costs.shape[1], np.int32(costs.shape[1] - 1)
            for r in range(0, _LANES, WIDTH):
                first_levels(columns[j], np.uint64(r), largest, last, base)
            for r in range(_LANES):
                copy_four(every_cost, np.uint64(start + 4 * base[r]), picked, np.uint64(4 * r))
            even, odd = costs[table, 0, 0], zero_costs[table]
            for r in range(0, _LANES, WIDTH):
                least_of_ways(
                    *(columns[j], np.uint64(r), largest, picked, even, odd, least, every_level),
                    np.uint64(4 * _LANES * j),
                )
            _step(total, before, branch, least, fresh, every_taken, _LANES * S * j)
        _back(first, n, total, before, branch, every_level, every_taken, levels, sides)


@jit(inner=True)
def _transposed(y, first, n, columns):
    for r in range(n):
        for j in range(y.shape[1]):
            columns[j, r] = y[first + r, j]
    for j in range(y.shape[1]):
        for r in range(n, _LANES):
            columns[j, r] = 0


@jit(inner=True)
def _step(total, before, branch, least, fresh, took, column):
    for s in range(len(before)):
        from0, from1 = np.int64(before[s, 0]) * _LANES, np.int64(before[s, 1]) * _LANES
        way0, way1 = np.int64(branch[s, 0]) * _LANES, np.int64(branch[s, 1]) * _LANES
        for r in range(0, _LANES, WIDTH):
            survivors(
                *(total, np.uint64(from0 + r), np.uint64(from1 + r)),
                *(least, np.uint64(way0 + r), np.uint64(way1 + r)),
                *(fresh, np.uint64(s * _LANES + r), took, np.uint64(column)),
            )
    for at in range(_LANES * len(before)):
        total[at] = fresh[at]


@jit(inner=True)
def _back(first, n, total, before, branch, chosen, took, levels, sides):
    state, into = _state(), _into()
    S, C = len(before), levels.shape[1]
    every_level, every_side = flat(levels), flat(sides)
    for s in range(S):
        for second in range(2):
            into[2 * s + second] = before[s, second] << 2 | branch[s, second]
    for r in range(n):
        best = 0
        for s in range(1, S):
            if total[s * _LANES + r] < total[best * _LANES + r]:
                best = s
        state[r] = best
    for j in range(C - 1, -1, -1):
        for r in range(n):
            own = np.int64(state[r])
            second = np.int64(took[np.uint64((j * S + own) * _LANES + r)])
            came = np.int64(into[np.uint64(2 * own + second)])
            way, at = came & 3, np.uint64((first + r) * C + j)
            state[r] = came >> 2
            every_level[at] = chosen[np.uint64((4 * j + way) * _LANES + r)]
            every_side[at] = way >> 1
