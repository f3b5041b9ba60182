"""How good codes of so many bits can be: the rate-distortion bound of a Gaussian source."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BLOCK = 8192


def distortion(variances: Tensor, bits: float) -> float:
    """The least sum of squared errors of a Gaussian vector with these variances, (D,), in `bits` a vector.

    All components that are coded have the same error, and those of less variance than that get no bits.
    Source: Shannon 1959; reverse water-filling, Cover and Thomas, "Elements of Information Theory", 10.3.
    """
    falling = variances.double().sort(descending=True).values
    falling = falling[falling > 0]
    n = torch.arange(1, len(falling) + 1, dtype=torch.float64, device=falling.device)
    error = ((falling.log().cumsum(0) - 2 * math.log(2) * bits) / n).exp()  # if the first n are coded
    coded = int((error <= falling).sum())
    return float(coded * error[coded - 1] + falling[coded:].sum()) if coded else 0.0


def cosine_bound(x: Tensor, bits: float) -> float:
    """The mean cosine with rows of x, (N, D) of length 1, that no code of a Gaussian source passes.

    The source has the mean and the covariance of x; it is the hardest one that has, so that rows that are not
    Gaussian may be coded better. Decoded rows of mean cosine c, scaled to length c, are 1 - c^2 off in the
    mean square, which is the distortion at least.
    """
    return math.sqrt(max(0.0, 1 - distortion(_variances(x), bits)))


def _variances(x: Tensor) -> Tensor:
    """(D,) float64 eigenvalues of the covariance."""
    moments, total = x.new_zeros((x.shape[1],) * 2, dtype=torch.float64), x.double().sum(0)
    for block in x.split(_BLOCK):
        moments.addmm_(block.double().T, block.double())
    mean = total / len(x)
    variances: Tensor = torch.linalg.eigvalsh(moments / len(x) - mean[:, None] * mean)
    return variances.clamp(min=0)
