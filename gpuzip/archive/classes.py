"""Classes of columns by their spread in steps, a quarter of an octave each, which share tables."""

from __future__ import annotations

import torch
from torch import Tensor

#: Classes go from a spread of 0.35 steps to one of 91; columns of a larger spread are of the last class.
CLASSES = 33
_PER_OCTAVE, _FIRST = 4, -6
#: Columns of a smaller spread are not coded.
DEAD = -1


def classes_of(spread: Tensor) -> Tensor:
    """(C,) standard deviations in steps -> (C,) int64: the class of each column, or DEAD."""
    found = (_PER_OCTAVE * spread.double().clamp(min=1e-9).log2()).round().long() - _FIRST
    return torch.where(found < 0, DEAD, found.clamp(max=CLASSES - 1))


def spread_of(column_class: int) -> float:
    """The standard deviation in steps in the middle of a class."""
    return float(2.0 ** ((column_class + _FIRST) / _PER_OCTAVE))


def expected_cost(spread: Tensor) -> Tensor:
    """Squared error plus `TRADE` times bits, per value of Gaussian columns with these spreads in steps.

    Fitted to what the coder with 8 states attains: near the rate-distortion bound plus 0.09 bits, and the
    column's variance where nothing is coded.
    """
    squared = spread.double() ** 2
    return torch.minimum(squared, 0.79 + squared.clamp(min=1e-9).log2() / 4)


#: Squared error, in squared steps, that the coder gives for a bit.
TRADE = 0.5
