"""Loops of a kernel in SASS, and how often each of its instructions runs.

A loop is a branch back to an instruction before it. How often it runs is not in the code: trips are given. Of
two ways through the code the one with a loop is taken, else the shorter one (the other has masks, or is for
the last rows); what calls a subroutine is left out, as it is for the rare operands of a division.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Instruction(NamedTuple):
    """`@P0 LDG.E.128 R4, [R2.64]`: guard, opcode with its modifiers, operands; address in bytes."""

    opcode: str
    address: int = 0
    guard: str = ""
    operands: str = ""

    @property
    def target(self) -> int | None:
        """Where a branch goes."""
        found = re.search(r"0x([0-9a-f]+)\s*$", self.operands) if self.opcode.startswith("BRA") else None
        return int(found[1], 16) if found else None


Code = Sequence[Instruction]

_LINE = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([\w.]+)([^;]*);")


def parse(text: str) -> list[Instruction]:
    """All instructions of what nvdisasm prints, NOPs too."""
    return [
        Instruction(opcode, int(address, 16), guard.strip(), operands.strip())
        for address, guard, opcode, operands in _LINE.findall(text)
    ]


class Loop(NamedTuple):
    """From the index of its first instruction to that of the branch back."""

    first: int
    last: int

    def holds(self, other: Loop) -> bool:
        return self != other and self.first <= other.first and other.last <= self.last


def loops(code: Code) -> list[Loop]:
    """In order, outer ones before those in them; what follows the last exit is no loop."""
    last: dict[int, int] = {}
    for i, target in _branches(code):
        if target < i and i < _end(code):
            last[target] = max(i, last.get(target, 0))
    return sorted((Loop(*found) for found in last.items()), key=lambda loop: (loop.first, -loop.last))


def _branches(code: Code) -> list[tuple[int, int]]:
    """Indices of branches and of where they go."""
    at = {instruction.address: i for i, instruction in enumerate(code)}
    targets = [(i, instruction.target) for i, instruction in enumerate(code)]
    return [(i, at[target]) for i, target in targets if target is not None and target in at]


def _end(code: Code) -> int:
    """Past the last exit; subroutines and blocks that hardly run follow."""
    exits = [i for i, one in enumerate(code) if one.opcode.startswith("EXIT") and not one.guard]
    return exits[-1] + 1 if exits else len(code)


class MismatchError(ValueError):
    """The loops are other ones than declared."""


def runs(code: Code, anchor: Callable[[Instruction], bool], nests: Sequence[Sequence[float]]) -> list[float]:
    """How often each instruction runs.

    nests: for each outermost loop that holds an anchor, in order, the trips of it and of the loops within it
    around the anchor. Loops without an anchor run once each time that they are met. Raises MismatchError.
    """
    found = loops(code)
    times = [0.0 if skipped else 1.0 for skipped in _skipped(code, found)]
    anchors = [i for i, one in enumerate(code) if times[i] and anchor(one)]
    around = [loop for loop in found if any(loop.first <= i <= loop.last for i in anchors)]
    outer = [loop for loop in around if not any(other.holds(loop) for other in around)]
    needed = [nest for nest in nests if any(trips != 1 for trips in nest)]
    if len(outer) == len(nests):
        needed = list(nests)
    if len(outer) != len(needed):
        raise MismatchError(f"{len(outer)} outermost loops with an anchor, where {len(needed)} are declared")
    for loop, nest in zip(outer, needed, strict=True):
        chain = [loop, *(inner for inner in around if loop.holds(inner))]
        for one, trips in zip(chain, _matched(chain, nest), strict=True):
            for i in range(one.first, one.last + 1):
                times[i] *= trips
    return times


def _matched(chain: list[Loop], nest: Sequence[float]) -> Sequence[float]:
    """The trips of a chain of loops; those that run once may have gone."""
    if any(not a.holds(b) for a, b in itertools.pairwise(chain)):
        raise MismatchError("loops with an anchor side by side in a loop; unrolled with a remainder?")
    nest = list(nest)
    while len(chain) < len(nest) and 1 in nest:
        nest.remove(1)
    if len(chain) != len(nest):
        raise MismatchError(f"{len(chain)} loops around the anchor, where {len(nest)} are declared")
    return nest


def _skipped(code: Code, found: list[Loop]) -> list[bool]:
    """What does not run in the usual case."""
    end = _end(code)
    skipped = [i >= end for i in range(len(code))]
    forward = [(i + 1, target) for i, target in _branches(code) if code[i].guard and i + 1 < target <= end]
    for call in (i for i, one in enumerate(code) if one.opcode.startswith("CALL")):
        bodies = [(to - start, start, to) for start, to in forward if start <= call < to]
        if bodies:
            _, start, to = min(bodies)
            skipped[start:to] = [True] * (to - start)
    ends = dict(_branches(code))
    for start, to in forward:
        last = to - 1
        if code[last].guard or any(skipped[start:to]):
            continue
        other = _exit_after(code, to) if code[last].opcode.startswith("EXIT") else ends.get(last, 0)
        if other <= to:
            continue
        ways = [(not _holds_a_loop(found, *way), way[1] - way[0], way) for way in ((start, to), (to, other))]
        _, _, (start, to) = max(ways)
        skipped[start:to] = [True] * (to - start)
    return skipped


def _holds_a_loop(found: list[Loop], start: int, end: int) -> bool:
    return any(start <= loop.first and loop.last < end for loop in found)


def _exit_after(code: Code, start: int) -> int:
    exits = (i for i in range(start, len(code)) if code[i].opcode.startswith("EXIT") and not code[i].guard)
    return next(exits, start - 1) + 1
