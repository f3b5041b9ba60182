"""Trellis-coded quantization: Viterbi's search with the states of a row side by side.

Layouts: y (N, C) float32 in steps, costs (T, K) float32 by magnitude, zero_costs (T,) float32, column_tables
(C,) int32, before and branch (S, 2) int32 -> levels (N, C) int32, sides (N, C) uint8.
Bytes moved: N*C*9, and N*C*(S + 16) of decisions to memory, of which the way back reads a sector per value.
Source: Viterbi 1967; Marcellin and Fischer 1990.
Ladder: 1. (here) BR rows per program, whose states exchange their sums by gathers of registers. A column
costs 4 branches and 2*S additions a row. Decisions go to memory, and a second kernel walks back.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


def _tile(S: int) -> int:
    """Return BR, the rows per program: fewer where a row has many states."""
    return 32 if S <= 16 else 2


@triton.jit
def _branch(a, base, residue: tl.constexpr, costs_ptr, table, zero_cost, last):
    """Return the least cost of a branch and its level, without a sign."""
    at = base + ((residue - base) & 3)
    off = a - at.to(tl.float32)
    cost = off * off + tl.load(costs_ptr + table * (last + 1) + tl.minimum(at, last))
    if residue == 0 or residue == 3:
        zero = a * a + zero_cost
        at = tl.where(zero < cost, 0, at)
        cost = tl.minimum(zero, cost)
    return cost, at


@triton.jit
def _of_way(way, first, second, third, fourth):
    low = tl.where(way == 0, first, second)
    return tl.where(way < 2, low, tl.where(way == 2, third, fourth))


@triton.jit(do_not_specialize=["N"])
def _forward(
    y_ptr, costs_ptr, zero_ptr, tables_ptr, before_ptr, branch_ptr, took_ptr, chosen_ptr, end_ptr, N, C, last,
    LARGEST: tl.constexpr, BR: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)[:, None]
    there = n < N
    s = tl.arange(0, S)[None, :]
    from0, from1 = tl.load(before_ptr + 2 * s), tl.load(before_ptr + 2 * s + 1)
    way0, way1 = tl.load(branch_ptr + 2 * s), tl.load(branch_ptr + 2 * s + 1)
    from0, from1 = tl.broadcast_to(from0, [BR, S]), tl.broadcast_to(from1, [BR, S])
    total = tl.where(tl.broadcast_to(s, [BR, S]) == 0, 0.0, float("inf"))
    for j in range(C):
        y = tl.load(y_ptr + n * C + j, mask=there, other=0.0)
        table = tl.load(tables_ptr + j)
        a = tl.minimum(tl.abs(y), LARGEST)
        base = tl.maximum(a.to(tl.int32) - 1, 0)
        even, zero = tl.load(costs_ptr + table * (last + 1)), tl.load(zero_ptr + table)
        c0, t0 = _branch(a, base, 0, costs_ptr, table, even, last)
        c1, t1 = _branch(a, base, 2, costs_ptr, table, zero, last)
        c2, t2 = _branch(a, base, 3, costs_ptr, table, zero, last)
        c3, t3 = _branch(a, base, 1, costs_ptr, table, zero, last)
        one = tl.gather(total, from0, 1) + _of_way(way0, c0, c1, c2, c3)
        two = tl.gather(total, from1, 1) + _of_way(way1, c0, c1, c2, c3)
        tl.store(took_ptr + (n * C + j) * S + s, (two < one).to(tl.uint8), mask=there)
        total = tl.minimum(two, one)
        w = tl.arange(0, 4)[None, :]
        level = _of_way(w, t0, t1, t2, t3)
        tl.store(chosen_ptr + (n * C + j) * 4 + w, tl.where(y < 0, -level, level), mask=there)
    end = tl.argmin(total, 1, tie_break_left=True)[:, None]
    tl.store(end_ptr + n, end.to(tl.int32), mask=there)


@triton.jit(do_not_specialize=["N"])
def _back(
    before_ptr, branch_ptr, took_ptr, chosen_ptr, end_ptr, levels_ptr, sides_ptr, N, C,
    BR: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    there = n < N
    state = tl.load(end_ptr + n, mask=there, other=0)
    for i in range(C):
        j = C - 1 - i
        second = tl.load(took_ptr + (n * C + j) * S + state, mask=there, other=0).to(tl.int32)
        way = tl.load(branch_ptr + 2 * state + second)
        state = tl.load(before_ptr + 2 * state + second)
        level = tl.load(chosen_ptr + (n * C + j) * 4 + way, mask=there, other=0)
        tl.store(levels_ptr + n * C + j, level, mask=there)
        tl.store(sides_ptr + n * C + j, (way >> 1).to(tl.uint8), mask=there)


def trellis_quantize(
    y: Tensor, costs: Tensor, zero_costs: Tensor, column_tables: Tensor, before: Tensor, branch: Tensor,
    largest: int, *, tile: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Launch: (N, C) float32 -> levels (N, C) int32 and sides (N, C) uint8."""
    (N, C), S = y.shape, len(before)
    levels = torch.empty((N, C), dtype=torch.int32, device=y.device)
    sides = torch.empty((N, C), dtype=torch.uint8, device=y.device)
    if levels.numel() == 0:
        return levels, sides
    took = torch.empty((N, C, S), dtype=torch.uint8, device=y.device)
    chosen = torch.empty((N, C, 4), dtype=torch.int32, device=y.device)
    end = torch.empty((N,), dtype=torch.int32, device=y.device)
    trellis = before.contiguous(), branch.contiguous()
    BR = tile or _tile(S)
    _forward[(triton.cdiv(N, BR),)](
        y.contiguous(), costs.contiguous(), zero_costs.contiguous(), column_tables.contiguous(), *trellis,
        took, chosen, end, N, C, costs.shape[1] - 1, LARGEST=largest, BR=BR, S=S, num_warps=4,
        enable_fp_fusion=False,
    )  # fmt: skip
    _back[(triton.cdiv(N, 128),)](*trellis, took, chosen, end, levels, sides, N, C, BR=128, S=S, num_warps=4)
    return levels, sides
