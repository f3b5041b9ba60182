"""Inputs for the samples of operators: sizes of 1, primes, and no multiples of a tile."""

from __future__ import annotations

import torch
from torch import Tensor


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def anisotropic(N: int, D: int, seed: int = 0) -> Tensor:
    """Return (N, D) float32: clustered rows, columns of very different spread, an offset and an outlier."""
    g = generator(seed)
    centers = torch.randn(max(1, N // 8), D, generator=g)
    rows = centers[torch.randint(0, len(centers), (N,), generator=g)] + 0.3 * torch.randn(N, D, generator=g)
    x = rows * torch.logspace(0, -2, D) + 0.1
    if N > 1:
        x[N // 2] *= 20
    return x


def random_codes(N: int, M: int, K: int, seed: int = 0) -> Tensor:
    """Return (N, M) labels below K, uint8 if K <= 256, else int32."""
    codes = torch.randint(0, K, (N, M), generator=generator(seed))
    return codes.to(label_dtype(K))


def label_dtype(K: int) -> torch.dtype:
    """Return the dtype of an index into K entries: uint8 if K <= 256, else int32."""
    return torch.uint8 if K <= 256 else torch.int32
