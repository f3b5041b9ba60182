"""Queries of scalar codes as whole numbers, with what the rounding hides."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.few import finite_inverse, is_plain
from gpuzip._core.matmul import matrix_product

Array = np.ndarray[Any, Any]


class Weights(NamedTuple):
    """Queries times the steps of codes, w = unit * whole + rest; q.x is about unit * whole.code + offset.

    whole: (Q, D) int8. The others are (Q,) float32. hidden: at least |rest|. norm: of the query.
    """

    whole: Tensor
    unit: Tensor
    hidden: Tensor
    offset: Tensor
    norm: Tensor


def weights(queries: Tensor, step: Tensor, middle: Tensor, half: int, normalize: bool) -> Weights:
    """Round queries (Q, D) float32 times step (D,) float32 to whole numbers.

    middle: (D,) float64, the values of code `half`, about which codes are bounded. normalize: queries are
    divided by their norms first.
    """
    if is_plain(queries):
        found = _weights(queries.numpy(), step.numpy(), middle.numpy(), half, normalize)
        return Weights(*map(torch.from_numpy, found))
    if normalize:
        queries = queries * _inverse(torch.linalg.vector_norm(queries, dim=1, keepdim=True))
    wide = queries.double()
    exact = wide * step  # [Q, D]
    unit = torch.linalg.vector_norm(exact, math.inf, dim=1, keepdim=True) / 127
    whole = (exact * _inverse(unit)).round_().clamp_(-127, 127)
    unit = unit[:, 0].float()
    rest = torch.linalg.vector_norm(torch.addcmul(exact, unit.double()[:, None], whole, value=-1), dim=1)
    offset = torch.addcmul(
        matrix_product(torch.matmul, wide, middle), unit.double(), whole.sum(1), value=-half
    ).float()
    norm = queries.square().sum(1).sqrt()
    return Weights(whole.to(torch.int8), unit, (rest * 1.001).float(), offset, norm)


def _weights(
    asked: Array, step: Array, middle: Array, half: int, normalize: bool
) -> tuple[Array, Array, Array, Array, Array]:
    norm = np.sqrt(np.einsum("qd,qd->q", asked, asked))
    if normalize:
        factor = finite_inverse(norm)
        asked, norm = asked * factor[:, None], norm * factor
    wide = asked.astype(np.float64)
    exact = wide * step
    unit = (np.abs(exact).max(1, initial=0) / 127).astype(np.float32)
    step_of_query = unit.astype(np.float64)[:, None]
    inverse = np.divide(1, step_of_query, out=np.zeros_like(step_of_query), where=step_of_query > 0)
    whole = np.clip(np.rint(exact * inverse), -127, 127)
    rest = exact - step_of_query * whole
    hidden = (np.sqrt(np.einsum("qd,qd->q", rest, rest)) * 1.001).astype(np.float32)
    offset = np.einsum("qd,d->q", wide, middle) - half * step_of_query[:, 0] * whole.sum(1)
    return whole.astype(np.int8), unit, hidden, offset.astype(np.float32), norm


def _inverse(norms: Tensor) -> Tensor:
    return norms.reciprocal().nan_to_num_(posinf=0.0)
