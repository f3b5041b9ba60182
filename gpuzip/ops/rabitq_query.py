"""Tables and coefficients of RaBitQ's queries by loops or numpy, whose calls take less time than torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.byte_tables import byte_tables
from gpuzip._core.device import is_gpu
from gpuzip._core.few import finite_inverse, is_plain, sums_of_products
from gpuzip.ops._dispatch import loops_are_used, loops_of

Array = np.ndarray[Any, Any]


def coefficients(
    queries: Tensor, center: Tensor, metric: str, reach: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the values of `search.scorers.rabitq_factors.Coefficients`, or None for tensors of a GPU."""
    if not is_plain(queries):
        return None
    if loops_are_used():
        found: tuple[Tensor, Tensor, Tensor] = loops_of("rabitq_query").coefficients(
            queries, center, metric, reach
        )
        return found
    asked, middle = queries.numpy(), center.numpy()
    if metric == "cosine":
        asked = asked * finite_inverse(_norms(asked))[:, None]
    along = _dots(asked, middle) * finite_inverse(_dots(middle[None], middle))
    across = asked - along[:, None] * middle
    columns, shift = [along], np.zeros_like(along)
    if metric == "l2":
        apart = asked - middle
        columns, shift = [2 * (along - 1), np.full_like(along, -1)], -_dots(apart, apart)
    if reach:
        columns.append(np.float32(reach) * _norms(across))
    return torch.from_numpy(across), torch.from_numpy(np.stack(columns, 1)), torch.from_numpy(shift[:, None])


def _dots(x: Array, y: Array) -> Array:
    """(Q,) float32: of rows (Q, D) with rows or with (D,), summed in float64."""
    sums: Array = sums_of_products(x, y).astype(np.float32)
    return sums


def _norms(x: Array) -> Array:
    norms: Array = np.sqrt(sums_of_products(x, x)).astype(np.float32)
    return norms


def sign_tables(queries: Tensor, W: int, bits: int) -> Tensor:
    """Make tables (Q, bits * 2W, 16) of queries (Q, D): <q, s> for the 4 signs s of each nibble.

    The first dimension is the lowest bit. Each plane weighs twice as much as the next one; the last has
    weight 1. A GPU gets one table of 256 entries per byte.
    """
    if is_plain(queries) and loops_are_used():
        tables: Tensor = loops_of("rabitq_query").sign_tables(queries, W, bits)
        return tables
    if is_plain(queries):
        return torch.from_numpy(_sign_tables(queries.numpy(), W, bits))
    values = torch.nn.functional.pad(queries, (0, 8 * W - queries.shape[1])).view(len(queries), 2 * W, 4)
    table = torch.zeros_like(values[:, :, :1])
    for value in values.unbind(2):
        table = torch.cat([table - value[:, :, None], table + value[:, :, None]], 2)
    planes = torch.cat([table * (1 << bit) for bit in reversed(range(bits))], 1)
    return byte_tables(planes) if is_gpu(queries.device) else planes


def _sign_tables(queries: Array, W: int, bits: int) -> Array:
    (Q, D), table = queries.shape, np.empty((16, len(queries), 2 * W), np.float32)
    padded = np.zeros((Q, 8 * W), np.float32)
    padded[:, :D] = queries
    values = padded.reshape(Q, 2 * W, 4)
    table[0] = 0
    for i in range(4):
        known = table[: 1 << i]
        np.add(known, values[:, :, i], out=table[1 << i : 2 << i])
        known -= values[:, :, i]
    tables = np.empty((Q, bits, 2 * W, 16), np.float32)
    for bit in range(bits):
        np.multiply(table.transpose(1, 2, 0), 1 << bit, out=tables[:, bits - 1 - bit])
    return tables.reshape(Q, bits * 2 * W, 16)
