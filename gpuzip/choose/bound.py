"""How good codes of so many bits can be: the rate-distortion bound of a Gaussian source."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gpuzip.rotations.spectrum import variances


def water_level(variances: Tensor, bits: float) -> float:
    """The squared error of each component that is coded, when a Gaussian vector is coded in `bits`.

    variances: (D,), of independent components. Those of less variance than the level get no bits.
    Source: Shannon 1959; reverse water-filling, Cover and Thomas, "Elements of Information Theory", 10.3.
    """
    falling = variances.double().sort(descending=True).values
    falling = falling[falling > 0]
    if len(falling) == 0:
        return 0.0
    n = torch.arange(1, len(falling) + 1, dtype=torch.float64, device=falling.device)
    error = ((falling.log().cumsum(0) - 2 * math.log(2) * bits) / n).exp()  # if the first n are coded
    coded = max(1, int((error <= falling).sum()))  # none by rounding, where all have one variance
    return float(error[coded - 1])


def distortion(variances: Tensor, bits: float) -> float:
    """The least sum of squared errors of a Gaussian vector with these variances, (D,), in `bits` a vector."""
    return float(variances.double().clamp(max=water_level(variances, bits)).sum())


def ideal_bits(variances: Tensor, bits: float) -> Tensor:
    """(D,) float64: the bits of each component, of `bits` in all, with which the distortion is least."""
    level = water_level(variances, bits)
    wide = variances.double()
    if level == 0:
        return torch.zeros_like(wide)
    return (wide / level).clamp(min=1.0).log2() / 2


def cosine_bound(x: Tensor, bits: float) -> float:
    """The mean cosine with rows of x, (N, D) of length 1, that no code of a Gaussian source passes.

    The source has the mean and the covariance of x; it is the hardest one that has, so that rows that are not
    Gaussian may be coded better. Decoded rows of mean cosine c, scaled to length c, are 1 - c^2 off in the
    mean square, which is the distortion at least.
    """
    return cosine_of(distortion(variances(x), bits))


def cosine_of(distortion: float) -> float:
    """The mean cosine that rows of length 1 have at most with rows that are so far off in the mean square."""
    return math.sqrt(max(0.0, 1 - distortion))
