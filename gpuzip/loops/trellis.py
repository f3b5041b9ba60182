"""Viterbi's search of the trellis for _LANES rows at once, one row per lane of vector registers."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import jit, wide_vectors

_LANES = 32
_BLOCK = 256  # rows per thread and turn


def trellis_quantize(y, costs, zero_costs, column_tables, before, branch, largest):
    """Run the operator: (N, C) float32 -> levels (N, C) int32 and sides (N, C) uint8."""
    N, C = y.shape
    levels = torch.empty((N, C), dtype=torch.int32, device="cpu")
    sides = torch.empty((N, C), dtype=torch.uint8, device="cpu")
    tables = (costs, zero_costs, column_tables, before, branch)
    arguments = tuple(part.contiguous().numpy() for part in tables)
    rows, S = y.contiguous().numpy(), len(before)

    def some_rows(start, stop):
        own = (
            np.empty((C, _LANES), np.float32),
            np.empty((S, _LANES), np.float32),
            np.empty((S, _LANES), np.float32),
            np.empty((4, _LANES), np.float32),
            np.empty((C, 4, _LANES), np.int32),
            np.empty((C, S, _LANES), np.uint8),
        )
        found = levels[start:stop].numpy(), sides[start:stop].numpy()
        _search(rows[start:stop], *arguments, np.float32(largest), *own, *found)

    map_blocks(some_rows, N, _BLOCK)
    return levels, sides


@jit(
    "void(float32[:, ::1], float32[:, ::1], float32[::1], int32[::1], int32[:, ::1], int32[:, ::1], "
    "float32, float32[:, ::1], float32[:, ::1], float32[:, ::1], float32[:, ::1], int32[:, :, ::1], "
    "uint8[:, :, ::1], int32[:, ::1], uint8[:, ::1])"
)
def _search(
    y, costs, zero_costs, tables, before, branch, largest,
    columns, total, fresh, least, chosen, took, levels, sides,
):  # fmt: skip
    wide_vectors()
    N = len(y)
    for first in range(0, N, _LANES):
        n = min(_LANES, N - first)
        _transposed(y, first, n, columns)
        _start(total)
        for j in range(len(columns)):
            table = tables[j]
            _branches(columns[j], costs[table], zero_costs[table], largest, least, chosen[j])
            _step(total, before, branch, least, fresh, took[j])
        _back(first, n, total, before, branch, chosen, took, levels, sides)


@jit(inner=True)
def _transposed(y, first, n, columns):
    for r in range(n):
        for j in range(y.shape[1]):
            columns[j, r] = y[first + r, j]
    for j in range(y.shape[1]):
        for r in range(n, _LANES):
            columns[j, r] = 0


@jit(inner=True)
def _start(total):
    for s in range(len(total)):
        for r in range(_LANES):
            total[s, r] = np.inf if s else 0


@jit(inner=True)
def _step(total, before, branch, least, fresh, took):
    for s in range(len(total)):
        _take(total, before[s, 0], before[s, 1], least, branch[s, 0], branch[s, 1], fresh[s], took[s])
    for s in range(len(total)):
        for r in range(_LANES):
            total[s, r] = fresh[s, r]


@jit(inner=True)
def _branches(y, costs, zero_cost, largest, least, chosen):
    last = np.int32(len(costs) - 1)
    for r in range(_LANES):
        v = y[r]
        a = min(abs(v), largest)
        base = max(np.int32(a) - np.int32(1), np.int32(0))
        for way in range(4):
            residue = np.int32((0, 2, 3, 1)[way])
            at = base + ((residue - base) & np.int32(3))
            off = a - np.float32(at)
            found = off * off + costs[min(at, last)]
            if way == 0 or way == 2:
                zero = a * a + (costs[0] if way == 0 else zero_cost)
                at = np.int32(0) if zero < found else at
                found = min(zero, found)
            least[way, r] = found
            chosen[way, r] = -at if v < 0 else at


@jit(inner=True)
def _take(total, from0, from1, least, way0, way1, fresh, took):
    for r in range(_LANES):
        one = total[from0, r] + least[way0, r]
        two = total[from1, r] + least[way1, r]
        took[r] = two < one
        fresh[r] = min(two, one)


@jit(inner=True)
def _back(first, n, total, before, branch, chosen, took, levels, sides):
    for r in range(n):
        state = 0
        for s in range(1, len(total)):
            if total[s, r] < total[state, r]:
                state = s
        for j in range(len(chosen) - 1, -1, -1):
            second = took[j, state, r]
            way = branch[state, second]
            state = before[state, second]
            levels[first + r, j] = chosen[j, way, r]
            sides[first + r, j] = way >> 1
