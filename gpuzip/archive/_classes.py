"""Columns in classes that share a table: as many as save more bytes than their tables take."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product

_TABLE_BITS = 3.0  # per symbol of a table
_OFF_BITS = 0.72  # per symbol and rows as many as are counted: what a table of some rows loses on others
_ROUNDS = 4
_SPLITS = 12
_LESS = 0.9998  # of the bits: what more classes have to bring
_RARE = 2.0**-13
_GAIN = 0.99  # of raw bits: what coding has to save to be worth its time
_MOST = 1 << 10  # classes


class Classes(NamedTuple):
    """of_column: (D,) int64, -1 for columns that are better left as they are. bits: estimate of the size."""

    of_column: Tensor
    tables: int
    bits: float


def classes(counts: Tensor, raw_bits: float | None = None, fixed: float = 0.0, scale: float = 1.0) -> Classes:
    """Group columns by their counts of symbols (D, K).

    raw_bits: per value of a column that is not coded. fixed: bits that it takes to code any column. scale:
    rows that are coded over those that are counted. Bits are those of rows that are coded.
    """
    counts = counts.double()
    total = counts.sum(1)
    raw = None if raw_bits is None else total * raw_bits * _GAIN
    of_symbol = _TABLE_BITS / scale + (_OFF_BITS if scale > 1 else 0)
    per_table = 64 / scale + of_symbol * float((counts.sum(0) > 0).sum())
    own = _bits_of_own(counts)
    tables = counts.sum(0, keepdim=True)
    best, failures = _grouped(counts, tables, raw, per_table), 0
    for _ in range(_SPLITS):
        if failures == 2 or len(tables) >= min(len(counts), _MOST):
            break
        tables = torch.cat([tables, _split(counts, tables, own)])
        for _ in range(_ROUNDS):
            of_column = _bits(counts, tables).argmin(1)
            tables = torch.zeros_like(tables).index_add_(0, of_column, counts)
            tables = tables[tables.sum(1) > 0]
        found = _grouped(counts, tables, raw, per_table)
        failures = 0 if found.bits < _LESS * best.bits else failures + 1
        best = found if found.bits < best.bits else best
    if raw is not None and best.bits + fixed / scale > float(raw.sum()):
        best = Classes(torch.full_like(best.of_column, -1), 0, float(raw.sum()))
    return best._replace(bits=best.bits * scale)


def _grouped(counts: Tensor, tables: Tensor, raw: Tensor | None, per_table: float) -> Classes:
    bits, of_column = _bits(counts, tables).min(1)
    if raw is not None:
        of_column = torch.where(bits < raw, of_column, -1)
        bits = torch.minimum(bits, raw)
    used, numbers = of_column[of_column >= 0].unique(return_inverse=True)
    of_column[of_column >= 0] = numbers
    return Classes(of_column, len(used), float(bits.sum()) + per_table * len(used))


def _split(counts: Tensor, tables: Tensor, own: Tensor) -> Tensor:
    """Return a table for each class but the best: the column that loses most by its class."""
    bits, of_column = _bits(counts, tables).min(1)
    loss = bits - own
    most = torch.zeros(len(tables), dtype=loss.dtype, device=loss.device).scatter_reduce_(
        0, of_column, loss, "amax"
    )
    first = ((loss == most[of_column]) & (loss > 0)).nonzero()[:, 0]
    chosen = first[loss[first].argsort(descending=True)][: len(tables)]
    return counts[chosen] if len(chosen) else counts[:1]


def _bits(counts: Tensor, tables: Tensor) -> Tensor:
    """Return the bits of columns (D, K) by tables of counts (T, K): (D, T)."""
    shares = (tables / tables.sum(1, keepdim=True).clamp_min(1)).clamp_min(_RARE)
    return matrix_product(torch.mm, counts, -shares.log2().T)


def _bits_of_own(counts: Tensor) -> Tensor:
    shares = (counts / counts.sum(1, keepdim=True).clamp_min(1)).clamp_min(_RARE)
    return -(counts * shares.log2()).sum(1)
