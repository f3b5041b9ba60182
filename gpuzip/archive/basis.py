"""The mean and the directions of rows, as levels that are coded like the rows themselves.

An error in a direction only spreads a little of its variance over the others, so it is coded as coarsely
as pays: each value of direction j as if it were sqrt(N * variance_j) times as large and part of the rows.
What is read back is made orthonormal, and completed by directions near to the axes that are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks
from gpuzip.archive.classes import classes_of, expected_cost

_FINEST = 45.0  # standard deviations of a direction's values in steps, at most


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of N rows, on the CPU.

    Attributes
    ----------
    n : int
        Rows that will be coded.
    mean, covariance : (D,) and (D, D) float64 tensors
        Of these rows, or of a sample.
    """

    n: int
    mean: Tensor
    covariance: Tensor

    @cached_property
    def principal(self) -> tuple[Tensor, Tensor]:
        """Variances (D,), falling, and their directions, the columns of (D, D)."""
        variances, directions = torch.linalg.eigh(self.covariance)
        return variances.flip(0).clamp(min=0), directions.flip(1)

    def spread(self, directions: Tensor | None) -> Tensor:
        """(D, R) -> (R,): standard deviations of rows along directions; None: along the axes."""
        if directions is None:
            return self.covariance.diagonal().clamp(min=0).sqrt()
        product = matrix_product(torch.mm, self.covariance, directions)
        return (directions * product).sum(0).clamp(min=0).sqrt()


@dataclass(frozen=True)
class Loadings:
    """Mean and directions before they are coded, in steps of their own.

    Attributes
    ----------
    values : (D, 1 + R) float32 tensor
        The mean, then R directions, each divided by its step.
    mean_step : float
        The step of the mean. Those of directions are not needed: they are scaled to length 1.
    """

    values: Tensor
    mean_step: float

    @property
    def classes(self) -> Tensor:
        """(1 + R,) classes of the columns; all are coded."""
        spread = self.values.double().square().mean(0).sqrt()
        return classes_of(spread).clamp(min=0)


def loadings(moments: Moments, rank: int, step: float) -> Loadings:
    """The mean and the first directions, each with the step that pays."""
    variances, directions = moments.principal
    d = len(variances)
    factor = (moments.n * variances[:rank]).sqrt() / step
    factor = factor.clamp(max=_FINEST * d**0.5)
    mean_step = step / moments.n**0.5
    finest = float(moments.mean.square().mean().sqrt()) / _FINEST
    mean_step = _as_float32(max(mean_step, finest) or 1.0)  # as files store it
    values = torch.cat([moments.mean[:, None] / mean_step, directions[:, :rank] * factor], 1)
    return Loadings(values.float(), mean_step)


def _as_float32(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32, device="cpu"))


def completed(directions: Tensor) -> Tensor:
    """(D, R) decoded directions, R > 0 -> (D, D) float64: orthonormal, the first R near to these.

    By Householder's reflections, as LAPACK's geqrf and orgqr compute them, on the CPU.
    """
    found: Tensor = torch.linalg.qr(directions.double().cpu(), mode="complete").Q
    return found


def best_rank(moments: Moments, step: float) -> int:
    """The number of directions with which rows and directions together cost least, by expectation."""
    ranks = _ranks(len(moments.principal[0]))  # found here, and not again in each thread
    costs = map_blocks(lambda i, _: _expected(moments, ranks[i], step), len(ranks), 1)
    return ranks[costs.index(min(costs))]


def _ranks(d: int) -> list[int]:
    """Some numbers of directions up to d, of which neighbours cost about the same."""
    return sorted({0, d, *(round(d / 2 ** (i / 2)) for i in range(1, 13))})


def _expected(moments: Moments, rank: int, step: float) -> float:
    variances, directions = moments.principal
    beside = loadings(moments, rank, step).values.double().square().mean(0).sqrt()
    cost = len(variances) * float(expected_cost(beside).clamp(min=0).sum())
    if rank == len(variances):
        spread = variances.sqrt()
    else:
        spread = moments.spread(completed(directions[:, :rank]) if rank else None)
    return cost + moments.n * float(expected_cost(spread / step).sum())
