"""New centroids of a k-means step: means of cells; empty cells take half of a large cell."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator

_SPLIT = 1 / 1024  # how far the halves of a split cell move apart, relative, as in FAISS
_32_BITS = (1 << 32) - 1


def _mixed(x: int) -> int:
    """Mix 32 bits by C. Wellons' lowbias32."""
    x = (x ^ (x >> 16)) * 0x21F0AAAD & _32_BITS
    x = (x ^ (x >> 15)) * 0x735A2D97 & _32_BITS
    return x ^ (x >> 15)


def drawn(seed: int, m: int, cell: int, total: int) -> int:
    """Draw a number below total, determined by seed, sub-space and cell."""
    return _mixed((_mixed((_mixed(seed) + m) & _32_BITS) + cell) & _32_BITS) % total


def update_reference(sums: Tensor, counts: Tensor, seed: int) -> Tensor:
    means = sums / counts.clamp(min=1)[:, :, None]
    for m in (counts == 0).any(1).nonzero().view(-1).tolist():
        _split_large(means[m], counts[m].long(), seed, m)
    return means


def _split_large(means: Tensor, size: Tensor, seed: int, m: int) -> None:
    """Give every empty cell half of another one, drawn with odds that grow with its size, in place."""
    step = torch.where(torch.arange(means.shape[1], device=means.device) % 2 == 0, _SPLIT, -_SPLIT)
    for empty in (size == 0).nonzero().view(-1).tolist():
        reach = (size - 1).clamp(min=0).cumsum(0)
        if reach[-1] > 0:
            draw = drawn(seed, m, empty, int(reach[-1]))
            donor = int(torch.searchsorted(reach, draw, right=True))
        else:
            donor = int(size.argmax())
        means[empty], means[donor] = means[donor] * (1 + step), means[donor] * (1 - step)
        half = size[donor] // 2
        size[empty], size[donor] = half, size[donor] - half


def _shapes(sums: Tensor, counts: Tensor, seed: int) -> Tensor:
    return torch.empty_like(sums)


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor, int]]:
    sizes = [(1, 1, 1, 9), (2, 2, 3, 1), (3, 16, 4, 40), (5, 17, 3, 30), (2, 256, 8, 300), (1, 1030, 5, 9000)]
    for M, K, S, rows in [*sizes, (1, 3, 1100, 2), (2, 5, 2, 0), (3, 8, 2, 3)]:
        g = generator(rows)
        labels = (torch.rand(M, rows, generator=g).square() * K).long()  # lower cells are larger
        counts = torch.stack([torch.bincount(row, minlength=K) for row in labels]).int()
        sums = torch.randn(M, K, S, generator=g) * counts[:, :, None]
        yield sums.to(device), counts.to(device), rows + 1234
    yield torch.ones(1, 4, 2, device=device), torch.tensor([[0, 2**31 - 1, 0, 0]]).int().to(device), 2**31 - 1


_op = define_op(
    "centroid_update(Tensor sums, Tensor counts, int seed) -> Tensor",
    reference=update_reference,
    shapes=_shapes,
    kernel="gpuzip.kernels.centroid_update:centroid_update",
    samples=_samples,
    agreement="exact",
)


def centroid_update(sums: Tensor, counts: Tensor, seed: int) -> Tensor:
    """Compute the means of cells. An empty cell takes half of a cell drawn with odds counts - 1.

    sums (M, K, S) float32, counts (M, K) int32 -> (M, K, S) float32. Empty cells are filled in order. The two
    halves are the donor's centroid moved by 1/1024 of itself, in directions that alternate by dimension, and
    they share its count. Draws are a hash of (seed, sub-space, cell), so all devices give the same bytes
    without synchronization. Source: FAISS Clustering.
    """
    centroids: Tensor = _op(sums, counts, seed & 0x7FFFFFFF)
    return centroids
