"""A step of k-means: the sums and counts of the rows nearest to each centroid."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator
from gpuzip.ops.assign import assign, assign_reference
from gpuzip.ops.centroid_sums import centroid_sums, sums_reference


def step_reference(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    return sums_reference(x, assign_reference(x, centroids), centroids.shape[1])


def _cpu(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    return centroid_sums(x, assign(x, centroids), centroids.shape[1])


def _shapes(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    M, K, S = centroids.shape
    return x.new_empty((M, K, S)), x.new_empty((M, K), dtype=torch.int32)


def apart(N: int, M: int, K: int, S: int, device: str) -> tuple[Tensor, Tensor]:
    """Return clustered rows and centroids, with no row near the border of two cells and some cells empty."""
    g = generator(N)
    centroids = torch.randint(-9, 10, (M, K, S), generator=g).float()  # equal centroids tie exactly
    cell = torch.randint(0, K, (N, M), generator=g)
    rows = centroids[torch.arange(M), cell] + 0.01 * torch.randn(N, M, S, generator=g)
    return rows.reshape(N, M * S).to(device), centroids.to(device)


_SIZES = [(0, 2, 4, 3), (1, 1, 2, 1), (37, 3, 16, 4), (1031, 3, 17, 3), (301, 2, 256, 8), (29, 1, 300, 5)]


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor]]:
    for size in [*_SIZES, (2100, 1, 16, 2), (131, 2, 16, 37), (67, 1, 1, 5), (67, 2, 5, 70)]:
        yield apart(*size, device)


_op = define_op(
    "kmeans_step(Tensor x, Tensor centroids) -> (Tensor, Tensor)",
    reference=step_reference,
    cpu=_cpu,
    loops="gpuzip.loops.kmeans_step:kmeans_step",
    shapes=_shapes,
    kernel="gpuzip.kernels.kmeans_step:kmeans_step",
    samples=_samples,
    agreement="close",
)


def kmeans_step(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `centroid_sums` for the labels of `assign` without returning the labels.

    x (N, M*S) float32, centroids (M, K, S) float32 -> sums (M, K, S) float32, counts (M, K) int32. Labels may
    differ from the reference's as in `assign`. Sums round as in `centroid_sums` and repeat bit for bit.
    """
    sums, counts = _op(x, centroids)
    return sums, counts
