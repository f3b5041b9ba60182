"""Frequencies of levels, for each class of columns and each of the two quantizers of the trellis."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor

from gpuzip.archive._varints import first
from gpuzip.archive.classes import CLASSES, TRADE, spread_of
from gpuzip.errors import FormatError

SIDES = 2
#: Most levels of one sign in one quantizer.
MOST = 127
#: The frequencies of a table add up to this.
WHOLE = 4096
_SYMBOLS = 2 + 2 * MOST
_COUNTS = MOST + 2
_PER_OCTAVE = 8  # frequencies are stored as logarithms
_HIGHEST = 12 * _PER_OCTAVE
_PRIOR = 16.0  # levels that the normal distribution adds to those counted
_ESCAPE_BITS = 12 + 32
_BEYOND = 2 * MOST + 1  # a level that no table has


@dataclass(frozen=True)
class Tables:
    """Tables of the classes that occur.

    Attributes
    ----------
    logs : dict of (int, int) to tuple of int
        By class and side: 8 times the binary logarithm of the frequency of magnitude 0, 1, 2 and so on, of
        each sign.
    """

    logs: dict[tuple[int, int], tuple[int, ...]]

    @cached_property
    def classes(self) -> list[int]:
        """The classes, rising."""
        return sorted({of for of, _ in self.logs})

    def index(self, classes: Tensor) -> Tensor:
        """(C,) classes, which must be here -> (C,) int32: the first of the two tables of each column."""
        places = torch.zeros(CLASSES, dtype=torch.int32, device="cpu")
        places[torch.tensor(self.classes, dtype=torch.int64, device="cpu")] = SIDES * torch.arange(
            len(self.classes), dtype=torch.int32, device="cpu"
        )
        return places[classes]

    @cached_property
    def frequencies(self) -> Tensor:
        """(T, 256) int32, of an escape, 0 and the magnitudes of either sign; each row adds up to WHOLE."""
        rows = [_frequencies(self.logs[of, side]) for of in self.classes for side in range(SIDES)]
        table = torch.zeros((len(rows), _SYMBOLS), dtype=torch.int32, device="cpu")
        for row, found in zip(table, rows, strict=True):
            row[: len(found)] = torch.tensor(found, dtype=torch.int32, device="cpu")
        return table

    @cached_property
    def values(self) -> Tensor:
        """(T, 256) int32: the level of each symbol; symbol 0 is the escape."""
        return torch.stack([_levels(side) for side in range(SIDES)]).repeat(len(self.classes), 1)

    @cached_property
    def bits(self) -> Tensor:
        """(T, 256) float64: what each symbol takes; one that a table lacks takes an escape and its level."""
        bits = 12 - self.frequencies.clamp(min=1).double().log2()  # WHOLE is 2^12
        bits[self.frequencies == 0] = _ESCAPE_BITS
        bits[:, 0] = _ESCAPE_BITS
        return bits

    @cached_property
    def costs(self) -> tuple[Tensor, Tensor]:
        """What a level costs, in squared steps: (T/2, 256) by magnitude, and (T/2,) for 0 on side 1."""
        bits = self.bits
        costs = torch.full((len(self.classes), _BEYOND + 1), _ESCAPE_BITS, dtype=torch.float64, device="cpu")
        costs[:, 0 : 2 * MOST + 1 : 2] = bits[0::SIDES, 1::2][:, : MOST + 1]
        costs[:, 1 : 2 * MOST : 2] = bits[1::SIDES, 2::2]
        return (TRADE * costs).float(), (TRADE * bits[1::SIDES, 1]).float().contiguous()

    def numbers(self) -> Iterator[int]:
        """Yield these tables as whole numbers."""
        yield len(self.classes)
        for of in self.classes:
            yield of
            for side in range(SIDES):
                logs = self.logs[of, side]
                yield len(logs)
                yield from (log - before for log, before in zip(logs, (_HIGHEST, *logs), strict=False))

    @staticmethod
    def read(numbers: Iterator[int]) -> Tables:
        """Return the tables that gave these numbers. Raises FormatError for others."""
        logs = {}
        for _ in range(first(numbers, 1, 1, CLASSES)[0]):
            (of,) = first(numbers, 1, 0, CLASSES - 1)
            for side in range(SIDES):
                (count,) = first(numbers, 1, 1, MOST + 1)
                logs[of, side] = _undone(first(numbers, count, -_HIGHEST, _HIGHEST))
        return Tables(logs)


def _undone(differences: list[int]) -> tuple[int, ...]:
    logs, log = [], _HIGHEST
    for difference in differences:
        log += difference
        if not 0 <= log <= _HIGHEST:
            raise FormatError(f"a logarithm of a frequency must be within [0, {_HIGHEST}]; got {log}.")
        logs.append(log)
    return tuple(logs)


def normal_tables(classes: Tensor) -> Tables:
    """The tables of normally distributed columns of these classes."""
    present = {int(of) for of in classes.tolist() if of >= 0}
    return Tables({(of, side): _logs(_normal(of, side)) for of in present for side in range(SIDES)})


def counted(levels: Tensor, sides: Tensor, classes: Tensor) -> Tensor:
    """Count levels (N, C) int32 of quantizers (N, C) uint8 and columns' classes (C,).

    Returns (CLASSES, SIDES, MOST + 2) int64 on the CPU, by magnitude; the last is of those that no table has.
    """
    magnitude = ((levels.abs() + 1) >> 1).clamp_(max=MOST + 1)
    of = (classes * SIDES * _COUNTS).to(levels.device, torch.int32)
    place = magnitude.add_(sides, alpha=_COUNTS).add_(of)
    counts = torch.bincount(place.flatten(), minlength=CLASSES * SIDES * _COUNTS)
    return counts.cpu().view(CLASSES, SIDES, _COUNTS)


def tables_of(counts: Tensor) -> Tables:
    """The tables of what `counted` returns."""
    present = counts.sum((1, 2)).nonzero()[:, 0].tolist()
    weights = counts[:, :, : MOST + 1].double()
    return Tables(
        {
            (of, side): _logs(weights[of, side] + _PRIOR * _normal(of, side))
            for of in present
            for side in range(SIDES)
        }
    )


def bits_of(counts: Tensor, tables: Tables) -> float:
    """The bits that these levels take by tables that have their classes, but for what whole words lose."""
    bits = tables.bits[:, [*range(1, _SYMBOLS, 2), 0]].view(len(tables.classes), SIDES, _COUNTS)
    return float((counts[tables.classes] * bits).sum())


@cache
def _normal(of: int, side: int) -> Tensor:
    """(MOST + 1,) float64: the probabilities of magnitudes, of both signs, in the middle of a class."""
    ends = [*range(1, 2 * MOST + 2, 2)]
    if side == 1:  # 0 is nearer to 1 than they are to the other levels
        ends = [0.5, *(end - 1 for end in ends[1:])]
    scale = spread_of(of) * 2**0.5
    below = [0.0, *(math.erf(end / scale) for end in ends)]
    return torch.tensor(below, dtype=torch.float64, device="cpu").diff()


def _logs(weights: Tensor) -> tuple[int, ...]:
    """Frequencies per sign as whole logarithms, up to the last magnitude that is not rare."""
    share = weights / weights.sum() * WHOLE
    share[1:] /= 2
    present = int((share >= 0.5).nonzero().max())
    logs = (_PER_OCTAVE * share[: present + 1].clamp(min=1).log2()).round().long()
    return tuple(logs.tolist())


def _frequencies(logs: tuple[int, ...]) -> list[int]:
    """Of an escape, 0, 1, -1, 2, -2 and so on; they add up to WHOLE."""
    weights = [round(2 ** (log / _PER_OCTAVE)) for log in logs]
    each = [1, weights[0], *(weight for weight in weights[1:] for _ in range(2))]
    total = sum(each)
    shares = [max(1, weight * WHOLE // total) for weight in each]
    while sum(shares) > WHOLE:
        shares[shares.index(max(shares))] -= 1
    shares[shares.index(max(shares))] += WHOLE - sum(shares)
    return shares


def _levels(side: int) -> Tensor:
    """(256,) int32: 0 for the escape, then 0, 1, -1, 2, -2 and so on, as levels of a quantizer."""
    magnitudes = 2 * torch.arange(1, MOST + 1, dtype=torch.int32, device="cpu") - side
    both = torch.stack([magnitudes, -magnitudes], 1).flatten()
    return torch.cat([both.new_zeros(2), both])
