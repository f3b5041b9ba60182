"""Trellis-coded quantization: the levels of each row with the least sum of squared error and cost of bits.

Two quantizers of step 2 share the whole numbers, the even ones and the odd ones with 0. The state before each
column says by its lowest bit which one is used, and the parity of what is chosen leads to the next state. So
a row of levels costs the bits of a step of 2 and has nearly the error of a step of 1.
Source: Marcellin and Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources", 1990; with
entropy coding, Fischer and Wang, "Entropy-constrained trellis-coded quantization", 1992; 0 in both
quantizers, Joshi, Crump and Fischer, 1995; the codes, Ungerboeck, "Channel coding with multilevel/phase
signals", 1982.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.errors import GpuzipError
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator

#: Parity-check polynomials of the convolutional codes, by the number of states.
_POLYNOMIALS = {
    4: (0o5, 0o2),
    8: (0o13, 0o04),
    16: (0o23, 0o04),
    32: (0o45, 0o10),
    64: (0o103, 0o024),
    128: (0o235, 0o126),
    256: (0o515, 0o362),
}

#: Numbers of states that a trellis may have.
STATES = tuple(_POLYNOMIALS)

#: Magnitudes that are coded, in steps; larger ones become this.
LARGEST = 1 << 20


_AT_ONCE, _FEWEST = 1 << 18, 256  # values at a time, and rows, at least


@cache
def next_states(states: int) -> Tensor:
    """Return the trellis with so many states: (states, 2) uint8, the state that follows for each parity.

    Raises GpuzipError unless states is 4, 8, 16, 32, 64, 128 or 256.
    """
    if states not in _POLYNOMIALS:
        raise GpuzipError(f"states must be one of {', '.join(map(str, _POLYNOMIALS))}; got {states}.")
    of_side, of_parity = _POLYNOMIALS[states]
    rows = [
        [(s >> 1) ^ (of_side >> 1) * (s & 1) ^ (of_parity >> 1) * b for b in (0, 1)] for s in range(states)
    ]
    return torch.tensor(rows, dtype=torch.uint8, device="cpu")


@cache
def ways_into(states: int) -> tuple[Tensor, Tensor]:
    """Return the two ways into each state: where from, (S, 2), and by which branch, (S, 2), both int32.

    A branch is 2 * side + parity. The ways are in the order of the states that they come from.
    """
    ways: list[list[tuple[int, int]]] = [[] for _ in range(states)]
    for s, row in enumerate(next_states(states).tolist()):
        for parity, to in enumerate(row):
            ways[to].append((s, 2 * (s & 1) + parity))
    both = torch.tensor(ways, dtype=torch.int32, device="cpu")
    return both[:, :, 0].contiguous(), both[:, :, 1].contiguous()


def _reference(
    y: Tensor,
    costs: Tensor,
    zero_costs: Tensor,
    column_tables: Tensor,
    before: Tensor,
    branch: Tensor,
    largest: int,
) -> tuple[Tensor, Tensor]:
    found = torch.empty(y.shape, dtype=torch.int32, device=y.device)
    sides = torch.empty(y.shape, dtype=torch.uint8, device=y.device)

    def some(start: int, stop: int) -> None:
        columns = y[start:stop].T.contiguous()
        cost, level = _branches(columns, costs, zero_costs, column_tables.long(), largest)
        ways = _least_ways(cost, before.long(), branch.long())
        found[start:stop] = level.gather(1, ways[:, None])[:, 0].T
        sides[start:stop] = (ways >> 1).to(torch.uint8).T

    map_blocks(some, len(y), max(_FEWEST, _AT_ONCE // max(1, y.shape[1])))
    return found, sides


def _least_ways(cost: Tensor, before: Tensor, branch: Tensor) -> Tensor:
    """Costs of branches (C, 4, N) -> (C, N) int64, the branches of the path that costs least."""
    C, _, N = cost.shape
    total = cost.new_full((len(before), N), float("inf"))
    total[0] = 0
    came = [cost.new_empty((len(before), N)) for _ in range(2)]
    step = torch.empty_like(came[0])
    took = torch.empty((C, len(before), N), dtype=torch.bool, device=cost.device)
    for j in range(C):
        for which, way in enumerate(came):
            torch.index_select(total, 0, before[:, which], out=way)
            way += torch.index_select(cost[j], 0, branch[:, which], out=step)
        torch.lt(came[1], came[0], out=took[j])
        torch.where(took[j], came[1], came[0], out=total)
    ways = torch.empty((C, N), dtype=torch.int64, device=cost.device)
    state = total.argmin(0) if N else ways.new_empty(0)
    rows = torch.arange(N, device=cost.device)
    into, origin = branch.flatten(), before.flatten()
    for j in reversed(range(C)):
        second = took[j].flatten().take(state * N + rows)
        at = 2 * state + second
        torch.take(into, at, out=ways[j])
        state = origin.take(at)
    return ways


def _branches(
    y: Tensor, costs: Tensor, zero_costs: Tensor, column_tables: Tensor, largest: int
) -> tuple[Tensor, Tensor]:
    """Columns (C, N) -> the least cost of each branch, (C, 4, N) float32, and its level, int32."""
    last = costs.shape[1] - 1
    a = y.abs().clamp(max=largest)
    base = (a.to(torch.int32) - 1).clamp(min=0)
    zeros = {0: costs[column_tables, 0], 2: zero_costs[column_tables]}
    cost = y.new_empty((len(y), 4, y.shape[1]))
    level = torch.empty(cost.shape, dtype=torch.int32, device=y.device)
    first = (column_tables * costs.shape[1])[:, None]
    for way, residue in enumerate((0, 2, 3, 1)):  # of the levels of branches, modulo 4
        at = base + ((residue - base) & 3)
        off = a - at
        found = off * off + costs.take(first + at.clamp(max=last))
        if way in zeros:
            zero = a * a + zeros[way][:, None]
            at, found = torch.where(zero < found, 0, at), torch.where(zero < found, zero, found)
        cost[:, way] = found
        level[:, way] = torch.where(y < 0, -at, at)
    return cost, level


def _shapes(y: Tensor, *other: Tensor | int) -> tuple[Tensor, Tensor]:
    return y.new_empty(y.shape, dtype=torch.int32), y.new_empty(y.shape, dtype=torch.uint8)


def _samples(device: str) -> Iterator[tuple[Tensor | int, ...]]:
    sizes = [(0, 3, 8), (1, 1, 4), (5, 7, 8), (31, 4, 8), (33, 17, 16), (70, 5, 64), (3, 2, 256)]
    for N, C, states in sizes:
        g = generator(N + C)
        spread = torch.logspace(-1, 2, C)
        y = torch.randn(N, C, generator=g) * spread
        y[::3, ::2] = 0
        if N > 2:
            y[2, 0] = -3e7  # beyond the largest level
        tables = 3
        costs = torch.arange(40).expand(tables, -1) * torch.rand(tables, 1, generator=g)
        arguments = (
            y,
            costs.contiguous(),
            torch.rand(tables, generator=g),
            torch.randint(0, tables, (C,), generator=g, dtype=torch.int32),
            *ways_into(states),
        )
        yield *(argument.to(device) for argument in arguments), LARGEST


_quantize = define_op(
    "trellis_quantize(Tensor y, Tensor costs, Tensor zero_costs, Tensor column_tables, Tensor before, "
    "Tensor branch, int largest) -> (Tensor, Tensor)",
    reference=_reference,
    shapes=_shapes,
    kernel="gpuzip.kernels.trellis:trellis_quantize",
    loops="gpuzip.loops.trellis:trellis_quantize",
    samples=_samples,
    agreement="exact",
)


def trellis_quantize(
    y: Tensor, costs: Tensor, zero_costs: Tensor, column_tables: Tensor, states: int
) -> tuple[Tensor, Tensor]:
    """Quantize rows to the levels with the least sum of squared error and cost.

    Parameters
    ----------
    y : (N, C) float32 tensor
        Rows in steps.
    costs : (T, K) float32 tensor
        By table, what levels of magnitude 0 to K - 1 cost, even ones in the quantizer of even levels and odd
        ones in that of odd levels. Larger levels cost as much as the last.
    zero_costs : (T,) float32 tensor
        What level 0 costs in the quantizer of odd levels.
    column_tables : (C,) int32 tensor
        The table of each column.
    states : int
        States of the trellis.

    Returns
    -------
    levels : (N, C) int32 tensor
        Levels of magnitude up to `LARGEST`.
    sides : (N, C) uint8 tensor
        0 where a level is of the quantizer of even levels, 1 where it is of that of odd ones.
    """
    before, branch = (part.to(y.device) for part in ways_into(states))
    levels, sides = _quantize(y, costs, zero_costs, column_tables, before, branch, LARGEST)
    return levels, sides
