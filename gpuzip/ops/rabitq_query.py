"""Tables and coefficients of RaBitQ's queries by compiled loops, on CPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip._core.byte_tables import byte_tables
from gpuzip._core.device import is_gpu
from gpuzip.ops._dispatch import loops_are_used, loops_of


def coefficients_by_loops(
    queries: Tensor, center: Tensor, metric: str, reach: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the values of `search.scorers.rabitq_factors.Coefficients`, or None where no loop runs."""
    if not _runs(queries):
        return None
    found: tuple[Tensor, Tensor, Tensor] = loops_of("rabitq_query").coefficients(
        queries, center, metric, reach
    )
    return found


def sign_tables(queries: Tensor, W: int, bits: int) -> Tensor:
    """Make tables (Q, bits * 2W, 16) of queries (Q, D): <q, s> for the 4 signs s of each nibble.

    The first dimension is the lowest bit. Each plane weighs twice as much as the next one; the last has
    weight 1. A GPU gets one table of 256 entries per byte.
    """
    if _runs(queries):
        made: Tensor = loops_of("rabitq_query").sign_tables(queries, W, bits)
        return made
    values = torch.nn.functional.pad(queries, (0, 8 * W - queries.shape[1])).view(len(queries), 2 * W, 4)
    table = torch.zeros_like(values[:, :, :1])
    for value in values.unbind(2):
        table = torch.cat([table - value[:, :, None], table + value[:, :, None]], 2)
    tables = torch.cat([table * (1 << bit) for bit in reversed(range(bits))], 1)
    return byte_tables(tables) if is_gpu(queries.device) else tables


def _runs(queries: Tensor) -> bool:
    return type(queries) is Tensor and queries.is_cpu and not queries.requires_grad and loops_are_used()
