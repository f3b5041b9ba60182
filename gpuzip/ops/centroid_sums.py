"""Sum and count of the rows of each centroid, the second half of a k-means step."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import anisotropic, random_codes

_ROWS = 1 << 17  # sub-vectors from which another thread pays


def sums_reference(x: Tensor, labels: Tensor, K: int) -> tuple[Tensor, Tensor]:
    M = labels.shape[1]
    S = x.shape[1] // M
    cell = (labels + torch.arange(0, M * K, K, device=x.device)).view(-1)  # [N*M] of M*K cells
    sums = x.new_zeros((M * K, S)).index_add_(0, cell, x.reshape(-1, S))
    counts = torch.bincount(cell, minlength=M * K).int()
    return sums.view(M, K, S), counts.view(M, K)


def _cpu(x: Tensor, labels: Tensor, K: int) -> tuple[Tensor, Tensor]:
    M = labels.shape[1]
    S = x.shape[1] // M

    def some_subspaces(start: int, stop: int) -> tuple[Tensor, Tensor]:
        return sums_reference(x[:, start * S : stop * S].contiguous(), labels[:, start:stop], K)

    at_a_time = max(8, _ROWS // max(1, len(x)))
    sums, counts = zip(*map_blocks(some_subspaces, M, at_a_time), strict=True)
    return torch.cat(sums), torch.cat(counts)


def _shapes(x: Tensor, labels: Tensor, K: int) -> tuple[Tensor, Tensor]:
    M = labels.shape[1]
    return x.new_empty((M, K, x.shape[1] // M)), x.new_empty((M, K), dtype=torch.int32)


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor, int]]:
    sizes = [(0, 2, 4, 3), (1, 1, 2, 1), (37, 3, 16, 4), (1031, 11, 17, 3), (301, 2, 256, 8), (29, 1, 300, 5)]
    for N, M, K, S in sizes:
        yield anisotropic(N, M * S).to(device), random_codes(N, M, K).to(device), K


_op = define_op(
    "centroid_sums(Tensor x, Tensor labels, int K) -> (Tensor, Tensor)",
    reference=sums_reference,
    cpu=_cpu,
    shapes=_shapes,
    loops="gpuzip.loops.centroid_sums:centroid_sums",
    kernel="gpuzip.kernels.centroid_sums:centroid_sums",
    samples=_samples,
    agreement="close",
)


def centroid_sums(x: Tensor, labels: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """Sum and count the sub-vectors of every label.

    x (N, M*S) float32, labels (N, M) uint8 or int32 below K -> sums (M, K, S) float32, counts (M, K) int32.
    Counts are exact. Sums repeat bit for bit on a device; another device may round differently. On a GPU, inf
    or NaN in a column of x spreads to all sums of that column.
    """
    sums, counts = _op(x, labels, K)
    return sums, counts
