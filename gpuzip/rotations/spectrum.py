"""Rotations from the eigenvectors of a sample: by falling variance, or balanced over sub-spaces."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product

_ROWS = 8192
_LEAST = 1e-10  # least variance of a direction, relative to the largest, so that logarithms are finite


def principal(x: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """(N, D) -> (dims, D) float64 orthonormal directions and the variance along each, descending.

    The span has the least squared error of x, not of x less its mean, so that what it leaves out needs no
    offset. Within the span, directions are those of the covariance.
    Source: Pearson 1901; Hotelling 1933.
    """
    return principal_of(*_moments(x), dims)


def principal_of(moments: Tensor, mean: Tensor, dims: int) -> tuple[Tensor, Tensor]:
    """`principal` of rows with these second moments (D, D) and means (D,), float64."""
    D = len(mean)
    basis = torch.eye(D, dtype=torch.float64, device=mean.device)
    if dims < D:
        basis = _eigenvectors(moments)[0][:dims]
    centered = matrix_product(torch.matmul, basis, moments - mean[:, None] * mean)
    covariance = matrix_product(torch.matmul, centered, basis.T)
    directions, variances = _eigenvectors(covariance)
    return matrix_product(torch.matmul, directions, basis), variances


def balanced(x: Tensor, dims: int, m: int) -> Tensor:
    """(N, D) -> (dims, D) float64: principal directions, ordered so that sub-spaces have similar variance.

    By falling variance, each direction goes to the sub-space with room that has the least product of
    variances.
    Source: Ge, He, Ke, Sun, "Optimized product quantization", 2013, the parametric solution.
    """
    return balanced_of(*_moments(x), dims, m)


def balanced_of(moments: Tensor, mean: Tensor, dims: int, m: int) -> Tensor:
    """`balanced` of rows with these second moments (D, D) and means (D,), float64."""
    directions, variances = principal_of(moments, mean, dims)
    logs = variances.clamp(min=float(variances[0]) * _LEAST or 1.0).log().tolist()
    S = -(-dims // m)
    room = [max(0, min(S, dims - S * i)) for i in range(m)]
    dealt: list[list[int]] = [[] for _ in range(m)]
    total = [0.0] * m
    for i, log in enumerate(logs):
        open_ = [j for j in range(m) if len(dealt[j]) < room[j]]
        j = min(open_, key=lambda j: (total[j], j))
        dealt[j].append(i)
        total[j] += log - logs[-1]
    return directions[torch.tensor([i for part in dealt for i in part], device=mean.device)]


def variances(x: Tensor) -> Tensor:
    """(N, D) -> (D,) float64: the variance along each principal direction, descending."""
    moments, mean = _moments(x)
    rising: Tensor = torch.linalg.eigvalsh(moments - mean[:, None] * mean)
    return rising.flip(0).clamp(min=0)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Second moments (D, D) and means (D,), float64."""
    D = x.shape[1]
    moments = torch.zeros((D, D), dtype=torch.float64, device=x.device)
    mean = torch.zeros(D, dtype=torch.float64, device=x.device)
    for block in x.split(_ROWS):
        wide = block.double()
        matrix_product(torch.addmm, moments, wide.T, wide, out=moments)
        mean += wide.sum(0)
    return moments / len(x), mean / len(x)


def _eigenvectors(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors as rows, by falling eigenvalue. The largest entry of each is positive, for determinism."""
    values, vectors = torch.linalg.eigh(symmetric)
    rows = vectors.T.flip(0)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return rows * largest.sign(), values.flip(0).clamp(min=0)
