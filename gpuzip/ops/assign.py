"""Nearest centroid of every sub-vector: the heart of k-means and of PQ encoding."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip.ops._define import define_op
from gpuzip.ops._samples import anisotropic, generator, label_dtype
from gpuzip.parallel import map_blocks

_TILE = 1 << 18  # distances in one tile: 1 MB of float32, half of a core's L2
_ROWS = 512
_FEW = 64  # centroids up to which whole-array passes beat an argmin a row


def _reference(x: Tensor, centroids: Tensor) -> Tensor:
    M, K, S = centroids.shape
    sub = x.float().view(-1, M, S)
    labels = torch.empty(sub.shape[:2], dtype=label_dtype(K), device=x.device)
    step = max(1, (1 << 22) // (K * S))
    for m in range(M):
        for n in range(0, len(sub), step):
            difference = sub[n : n + step, m, None, :] - centroids[m]  # [n, K, S]
            labels[n : n + step, m] = difference.square().sum(-1).argmin(-1)
    return labels


def _cpu(x: Tensor, centroids: Tensor) -> Tensor:
    """The product [x, 1] . [-2c, |c|^2] in cache-sized tiles, then the first least entry of each row."""
    M, K, S = centroids.shape
    labels = torch.empty((x.shape[0], M), dtype=label_dtype(K))
    shift = centroids.mean(1, keepdim=True)  # a common offset would take the digits of near distances
    centered = centroids - shift
    table = torch.cat([-2 * centered, centered.square().sum(-1, keepdim=True)], -1)  # [M, K, S+1]
    least = _least_of_few if K <= _FEW else _least_of_many

    def one_block(start: int, stop: int) -> None:
        sub = torch.ones((M, stop - start, S + 1))
        torch.sub(x[start:stop].view(-1, M, S).transpose(0, 1), shift, out=sub[:, :, :S])
        least(sub, table, labels[start:stop])

    map_blocks(one_block, len(x), _ROWS if K <= _FEW else max(16, _TILE // K))
    return labels


def _least_of_few(sub: Tensor, table: Tensor, labels: Tensor) -> None:
    """Many sub-spaces at once, by whole-array passes; a comparison finds the lowest index of the least."""
    M, K, _ = table.shape
    step = max(1, _TILE // (K * sub.shape[1]))
    countdown = torch.arange(K, 0, -1, dtype=torch.uint8)[:, None]  # [K, 1]
    for m in range(0, M, step):
        distance = torch.bmm(table[m : m + step], sub[m : m + step].mT)  # [m, K, n]
        at_least = distance == distance.amin(1, keepdim=True)
        labels[:, m : m + step] = (K - (at_least.view(torch.uint8) * countdown).amax(1)).T


def _least_of_many(sub: Tensor, table: Tensor, labels: Tensor) -> None:
    """One sub-space at a time; numpy's argmin is vectorized along a row and torch's is not."""
    distance = torch.empty((sub.shape[1], table.shape[1]))
    out = labels.numpy()
    for m in range(len(table)):
        torch.mm(sub[m], table[m].T, out=distance)
        out[:, m] = distance.numpy().argmin(1)


def _shapes(x: Tensor, centroids: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], centroids.shape[0]), dtype=label_dtype(centroids.shape[1]))


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor]]:
    sizes = [(0, 2, 4, 3), (1, 1, 1, 1), (37, 3, 16, 4), (1031, 5, 17, 3), (1031, 2, 256, 8), (29, 1, 257, 5)]
    for N, M, K, S in sizes:
        x = anisotropic(N, M * S)
        centroids = anisotropic(K, M * S, seed=1).view(K, M, S).transpose(0, 1).contiguous()
        yield x.to(device), centroids.to(device)
    tied = torch.randint(0, 2, (53, 8), generator=generator()).float()
    yield tied.to(device), tied[:20].view(20, 2, 4).transpose(0, 1).contiguous().to(device)
    for dtype in (torch.float16, torch.bfloat16):
        yield anisotropic(41, 12).to(device, dtype), anisotropic(16, 12, seed=2).view(4, 16, 3).to(device)


_op = define_op(
    "assign(Tensor x, Tensor centroids) -> Tensor",
    reference=_reference,
    cpu=_cpu,
    shapes=_shapes,
    loops="gpuzip.loops.assign:assign",
    kernel="gpuzip.kernels.assign:assign",
    samples=_samples,
    agreement="nearest",
)


def assign(x: Tensor, centroids: Tensor) -> Tensor:
    """Index of the nearest centroid (squared L2) of every sub-vector; the lowest index of a tie.

    (N, M*S) float, (M, K, S) float32 -> (N, M), uint8 when K <= 256, else int32. On every device
    an index may differ from the reference's only where two distances are within 1e-5 of
    (distance + |x|^2). Source: Lloyd 1957; FAISS ProductQuantizer.
    """
    labels: Tensor = _op(x, centroids)
    return labels
