"""The factors that a RaBitQ row keeps beside its bits, two bytes each, and how a scorer uses them.

A row x = center + o is coded as a grid point g, and as its signs s alone. Both have a step a, for which
center + a * g is nearest to x, and a surplus w, for which (1 + w) * a * <q, g> is an unbiased estimate of
<q, o>. The signs also have the lean: the cosine of o and the center.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gpuzip._core.device import is_gpu
from gpuzip.ops import rabitq_query
from gpuzip.search.scorers.common import inverse

FIRST, DEEP = 6, 4  # bytes per row for the factors of the signs, and for those of all bits

_MOST = 65504.0  # the largest float16
_ZERO = 2.0  # marks a row of zeros in place of its lean of -1, as its cosine is 0
_OFFSET = 64 << 9  # the exponent offset of a short float
_ROUNDED = 2.0**-8  # bound of the rounding of 1 + w, from 10-bit steps and float16


class First(NamedTuple):
    """The factors of the signs: step, surplus and lean, (N,) float32 each."""

    step: Tensor
    surplus: Tensor
    lean: Tensor

    def square(self, D: int) -> Tensor:
        """|o|^2."""
        return self.step.square() * (1 + self.surplus) * D


class Terms(NamedTuple):
    """The columns of rows that `adc_scan` takes: scale (N,) and extra (N, E) float32."""

    scale: Tensor
    extra: Tensor


def largest_of(terms: Terms) -> tuple[float, Tensor]:
    """The largest finite size of scales, and of each extra column (E,); 0 without rows."""
    sizes = torch.cat([terms.scale[:, None], terms.extra], 1).abs()
    sizes = torch.where(sizes.isfinite(), sizes, 0)
    most = sizes.amax(0) if len(sizes) else sizes.sum(0)
    return float(most[0]), most[1:]


def share_of_roundings(D: int, B: int, E: int) -> float:
    """The share of the sizes of all products by which a score of B bytes differs from another sum of them.

    Each is a sum of products, of D dimensions and E extra columns, with some roundings of 2**-24, at most as
    many as counted here, of the sum of the sizes of all products. Twice that is allowed.
    """
    return (D + B + 2 * E + 16) * 2.0**-23


def first_bytes(sums: Tensor, zeros: Tensor, D: int, length: Tensor) -> Tensor:
    """Sums of `rabitq_encode`, (N,) bool of which rows are zeros, length |center| -> (N, 6) uint8."""
    square, total, _, _, onto = sums.unbind(1)
    step = _short(total / D)
    surplus = _surplus(square, _of_short(step).square() * D)
    lean = (onto * inverse(square.sqrt() * length)).clamp(-1, 1)
    return torch.cat([step, surplus, _half(torch.where(zeros, _ZERO, lean))], 1)


def deep_bytes(sums: Tensor) -> Tensor:
    """Sums of `rabitq_encode`, (N, 5) -> (N, 4) uint8: step and surplus of all bits."""
    square, _, dot, points, _ = sums.unbind(1)
    step = _short(dot / points)
    return torch.cat([step, _surplus(square, _of_short(step) * dot)], 1)


def read_first(data: Tensor) -> First:
    """The inverse of `first_bytes`: (N, 6) uint8 -> First."""
    return First(_of_short(data[:, :2]), _of_half(data[:, 2:4]), _of_half(data[:, 4:]))


def read_deep(data: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `deep_bytes`: (N, 4) uint8 -> step, surplus."""
    return _of_short(data[:, :2]), _of_half(data[:, 2:])


def terms(
    first: First, deep: tuple[Tensor, Tensor] | None, center: Tensor, metric: str, bounds: bool
) -> Terms:
    """The columns of rows that go with the `coefficients` of a query.

    deep: step and surplus of all bits; None if there are only signs. bounds: add a column with the standard
    error of an estimate by the signs, for a query of length 1.
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
    extra = torch.stack(columns).T  # column after column, as one pass on a CPU reads them
    return Terms(scale * factor, extra.contiguous() if is_gpu(extra.device) else extra)


class Coefficients(NamedTuple):
    """Per query: the vector to make tables of (Q, D), factors of the extra columns (Q, E), a summand (Q, 1).

    Only the part of a query across the center is estimated. The part along it is known exactly for each row.
    """

    across: Tensor
    coef: Tensor
    shift: Tensor


def coefficients(queries: Tensor, center: Tensor, metric: str, reach: float) -> Coefficients:
    """Coefficients of queries. reach: how many standard errors to add to estimates; 0 without that column."""
    if (found := rabitq_query.coefficients(queries, center, metric, reach)) is not None:
        return Coefficients(*found)
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
    even = data.clone(memory_format=torch.contiguous_format)  # starts at an even byte, also of one row
    return even.view(torch.float16)[:, 0].float()


def _short(values: Tensor) -> Tensor:
    """(N,) float32, none negative -> (N, 2) bytes: 7 bits of exponent, 9 of mantissa, 2**-63 to 2**64."""
    bits = values.contiguous().view(torch.int32)
    number = (((bits + (1 << 13)) >> 14) - _OFFSET).clamp(0, (1 << 16) - 1)
    return torch.stack([number & 255, number >> 8], 1).to(torch.uint8)


def _of_short(data: Tensor) -> Tensor:
    number = data[:, 0].int() + 256 * data[:, 1].int()
    return torch.where(number > 0, ((number + _OFFSET) << 14).view(torch.float32), 0)
