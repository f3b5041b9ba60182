"""Columns of floats as levels of the trellis, and back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gpuzip.archive.classes import CLASSES
from gpuzip.archive.tables import Tables, counted, normal_tables, tables_of
from gpuzip.ops.trellis import trellis_quantize

_ROUNDS = 2
_PARTS = 64  # an offset is stored in parts of a step
_LARGEST_OFFSET = 100


@dataclass(frozen=True)
class Levels:
    """Quantized columns.

    Attributes
    ----------
    levels : (N, C) int32 tensor
        Multiples of the step.
    sides : (N, C) uint8 tensor
        Which quantizer each belongs to.
    """

    levels: Tensor
    sides: Tensor


def quantized(values: Tensor, classes: Tensor, tables: Tables, states: int) -> Levels:
    """Quantize columns (N, C) float32 in steps to what costs least by the tables of their classes (C,)."""
    costs, zero_costs = (part.to(values.device) for part in tables.costs)
    places = (tables.index(classes) // 2).to(values.device)
    return Levels(*trellis_quantize(values, costs, zero_costs, places, states))


def fitted_tables(
    values: Tensor, classes: Tensor, states: int, beside: Tensor, start: Tables | None = None
) -> tuple[Tables, Levels]:
    """Find tables for columns (N, C) float32 of classes (C,), and the levels that they lead to.

    Levels depend on tables and the other way round, so both are found in turn.

    beside: counts of other levels that have the same tables. start: tables to begin with.
    """
    others = beside.sum((1, 2)).nonzero()[:, 0]
    tables = normal_tables(torch.cat([classes, others]))
    if start is not None:
        tables = Tables(tables.logs | {key: logs for key, logs in start.logs.items() if key in tables.logs})
    for _ in range(_ROUNDS):
        found = quantized(values, classes, tables, states)
        tables = tables_of(counted(found.levels, found.sides, classes) + beside)
    return tables, quantized(values, classes, tables, states)


def offsets(values: Tensor, classes: Tensor, found: Levels) -> Tensor:
    """How far values lie beyond their levels in the mean, away from 0: (CLASSES, 3) int8 in parts of a step.

    The three are of levels of magnitude 1, 2, and more.
    """
    magnitude = found.levels.abs()
    off = values * found.levels.sign() - magnitude
    near = off.abs() <= 2  # not those beyond the largest level
    groups = [magnitude == 1, magnitude == 2, magnitude > 2]
    found_in = [near & group for group in groups]
    sums = torch.stack([(off * here).sum(0, dtype=torch.float64) for here in found_in], 1).cpu()
    counts = torch.stack([here.sum(0) for here in found_in], 1).cpu()
    of_class = torch.zeros((2, CLASSES, len(groups)), dtype=torch.float64, device="cpu")
    of_class[0].index_add_(0, classes, sums)
    of_class[1].index_add_(0, classes, counts.double())
    parts = (_PARTS * of_class[0] / of_class[1].clamp(min=1)).round()
    return parts.clamp(-_LARGEST_OFFSET, _LARGEST_OFFSET).to(torch.int8)


def offsets_of(offset: Tensor, classes: Tensor) -> Tensor:
    """The offsets of columns by their classes: (C, 4) float32 in steps, that of level 0 first."""
    return torch.nn.functional.pad(offset.float() / _PARTS, (1, 0))[classes.cpu()].contiguous()
