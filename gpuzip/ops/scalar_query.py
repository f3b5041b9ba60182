"""Queries of scalar codes as whole numbers, with what the rounding hides."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip.ops._dispatch import loops_are_used, loops_of


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
    if type(queries) is Tensor and queries.is_cpu and not queries.requires_grad and loops_are_used():
        return Weights(*loops_of("scalar_query").weights(queries, step, middle, half, normalize))
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


def _inverse(norms: Tensor) -> Tensor:
    return norms.reciprocal().nan_to_num_(posinf=0.0)
