"""What a RaBitQ row keeps beside its bits, in two bytes a number, and what a scorer makes of it.

A row x = center + o is coded as a grid point g, and as its signs alone, s. For both: the step a, for which
center + a * g is nearest x, and the surplus w, for which (1 + w) * a * <q, g> is an unbiased estimate of
<q, o>. Beside the signs also the lean: the cosine of o and the center.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpuzip.search.scorers.common import inverse

FIRST, DEEP = 6, 4  # bytes a row of factors of the signs, and of all bits

_MOST = 65504.0  # of float16
_ZERO = 2.0  # the lean of a row of zeros, whose own is -1: its cosine is 0
_OFFSET = 64 << 9  # of a short float's exponent
_ROUNDED = 2.0**-8  # of 1 + w, by steps of 10 bits and float16


class First(NamedTuple):
    """(N,) float32 each: step and surplus of the signs, and the lean."""

    step: Tensor
    surplus: Tensor
    lean: Tensor

    def square(self, D: int) -> Tensor:
        """|o|^2."""
        return self.step.square() * (1 + self.surplus) * D


class Terms(NamedTuple):
    """Of all rows, what `adc_scan` takes: scale (N,) and extra (N, E) float32."""

    scale: Tensor
    extra: Tensor


def first_bytes(sums: Tensor, zeros: Tensor, D: int, length: Tensor) -> Tensor:
    """sums as of `rabitq_encode`, zeros (N,) bool: rows of zeros, length: |center| -> (N, 6) uint8."""
    square, total, _, _, onto = sums.unbind(1)
    step = _short(total / D)
    surplus = _surplus(square, _of_short(step).square() * D)
    lean = (onto * inverse(square.sqrt() * length)).clamp(-1, 1)
    return torch.cat([step, surplus, _half(torch.where(zeros, _ZERO, lean))], 1)


def deep_bytes(sums: Tensor) -> Tensor:
    """(N, 5) -> (N, 4) uint8: step and surplus of all bits."""
    square, _, dot, points, _ = sums.unbind(1)
    step = _short(dot / points)
    return torch.cat([step, _surplus(square, _of_short(step) * dot)], 1)


def read_first(data: Tensor) -> First:
    """(N, 6) uint8, as of `first_bytes`."""
    return First(_of_short(data[:, :2]), _of_half(data[:, 2:4]), _of_half(data[:, 4:]))


def read_deep(data: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 4) uint8 -> step, surplus."""
    return _of_short(data[:, :2]), _of_half(data[:, 2:])


def terms(
    first: First, deep: tuple[Tensor, Tensor] | None, center: Tensor, metric: str, bounds: bool
) -> Terms:
    """Columns of rows for `coefficients` of a query. deep: of all bits, where there are more than the signs.

    bounds: one column more, the standard error of an estimate by the signs for a query of length 1.
    """
    D, length = len(center), _norm(center)
    square = first.square(D)
    zero = first.lean == _ZERO
    onto = torch.where(zero, -1.0, first.lean) * square.sqrt() * length  # <center, o>
    step, surplus = (first.step, first.surplus) if deep is None else deep
    scale, along = step * (1 + surplus), length.square() + onto  # <center, x>
    factor = torch.ones_like(scale)
    if metric == "cosine":
        norm = (along + onto + square).clamp(min=0).sqrt()
        factor = inverse(norm.masked_fill(zero, 0))
    columns = [onto, square] if metric == "l2" else [along * factor]
    factor = 2 * factor if metric == "l2" else factor
    if bounds:
        tangent = first.surplus.clamp(min=0) + (1 + first.surplus) * _ROUNDED
        columns.append((square * tangent / max(1, D - 1)).sqrt() * factor)
    return Terms(scale * factor, torch.stack(columns, 1))


class Coefficients(NamedTuple):
    """Of queries: what tables are made of (Q, D), factors of the extra columns (Q, E), and a summand (Q, 1).

    Only the part of a query across the center needs an estimate: that along it is known exactly of each row.
    """

    across: Tensor
    coef: Tensor
    shift: Tensor


def coefficients(queries: Tensor, center: Tensor, metric: str, reach: float) -> Coefficients:
    """reach: standard errors above the estimate that the last column of `terms` adds; 0 where it has none."""
    if metric == "cosine":
        queries = queries * inverse(_norm(queries))[:, None]
    along = _dot(queries, center) * inverse(_dot(center, center))  # <q, c> / |c|^2
    across = queries - along[:, None] * center
    one, shift = torch.ones_like(along), torch.zeros_like(along)
    columns = [along]
    if metric == "l2":
        columns, shift = [2 * (along - 1), -one], -_dot(queries - center, queries - center)
    if reach:
        columns.append(reach * _norm(across))
    return Coefficients(across, torch.stack(columns, 1), shift[:, None])


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x.double() * y.double()).sum(-1).float()


def _norm(x: Tensor) -> Tensor:
    return x.double().square().sum(-1).sqrt().float()


def _surplus(square: Tensor, explained: Tensor) -> Tensor:
    """square / explained - 1, 0 where there is nothing to explain, as (N, 2) bytes."""
    return _half(torch.where(explained > 0, square / explained - 1, 0).clamp(-1, _MOST))


def _half(values: Tensor) -> Tensor:
    return values.half()[:, None].view(torch.uint8)


def _of_half(data: Tensor) -> Tensor:
    return data.contiguous().view(torch.float16)[:, 0].float()


def _short(values: Tensor) -> Tensor:
    """(N,) float32, none negative -> (N, 2) bytes: 7 bits of exponent, 9 of mantissa, 2**-63 to 2**64."""
    bits = values.contiguous().view(torch.int32)
    number = (((bits + (1 << 13)) >> 14) - _OFFSET).clamp(0, (1 << 16) - 1)
    return torch.stack([number & 255, number >> 8], 1).to(torch.uint8)


def _of_short(data: Tensor) -> Tensor:
    number = data[:, 0].int() + 256 * data[:, 1].int()
    return torch.where(number > 0, ((number + _OFFSET) << 14).view(torch.float32), 0)
