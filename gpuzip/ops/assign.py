"""Nearest centroid of every sub-vector, for k-means and PQ encoding."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import anisotropic, generator, label_dtype

_TILE = 1 << 18  # distances per tile: 1 MB of float32, half of a core's L2
_ROWS = 512
_FEW = 64  # up to so many centroids, whole-array passes beat an argmin per row


def assign_reference(x: Tensor, centroids: Tensor, exact: bool = False) -> Tensor:
    M, K, S = centroids.shape
    sub = x.float().view(-1, M, S)
    labels = torch.empty(sub.shape[:2], dtype=label_dtype(K), device=x.device)
    step = max(1, (1 << 22) // (K * S))
    for m in range(M):
        for n in range(0, len(sub), step):
            difference = sub[n : n + step, m, None, :] - centroids[m]  # [n, K, S]
            labels[n : n + step, m] = difference.square().sum(-1).argmin(-1)
    return labels


def _cpu(x: Tensor, centroids: Tensor, exact: bool = False) -> Tensor:
    """Compute [x, 1] . [-2c, |c|^2] in cache-sized tiles, then the first minimum of each row."""
    M, K, S = centroids.shape
    labels = torch.empty((x.shape[0], M), dtype=label_dtype(K), device="cpu")
    shift = _shift(centroids)
    centered = centroids - shift
    table = torch.cat([-2 * centered, centered.square().sum(-1, keepdim=True)], -1)  # [M, K, S+1]
    least = _least_of_few if K <= _FEW else _least_of_many

    def one_block(start: int, stop: int) -> None:
        sub = torch.ones((M, stop - start, S + 1), dtype=torch.float32, device="cpu")
        torch.sub(x[start:stop].view(-1, M, S).transpose(0, 1), shift, out=sub[:, :, :S])
        if exact:
            _least_exactly(sub, table, x[start:stop], centroids, labels[start:stop])
        else:
            least(sub, table, labels[start:stop])

    map_blocks(one_block, len(x), _ROWS if K <= _FEW else max(16, _TILE // K))
    return labels


def _shift(centroids: Tensor) -> Tensor:
    """Return (M, 1, S) offsets to subtract: the mean of the centroids if that halves their reach, else 0.

    A common offset costs near distances their digits. So does a mean that a far outlier pulls away.
    """
    mean = centroids.mean(1, keepdim=True)
    near, far = ((c.abs().amax((1, 2), keepdim=True)) for c in (centroids - mean, centroids))
    return torch.where(near * 2 <= far, mean, 0.0)


def _least_exactly(sub: Tensor, table: Tensor, x: Tensor, centroids: Tensor, labels: Tensor) -> None:
    """Find the minimum of each row. Use the reference if another distance is within the rounding error."""
    M, _, S = centroids.shape
    for m in range(M):
        distance = matrix_product(torch.mm, sub[m], table[m].T)  # [n, K]
        least, labels[:, m] = distance.min(1)
        reach = table[m, :, S].amax()
        size = reach + 2 * (reach * sub[m, :, :S].square().sum(1)).sqrt()  # of the largest term in a sum
        unsure = ((distance <= (least + (S + 8) * 2.0**-22 * size)[:, None]).sum(1) != 1).nonzero()[:, 0]
        labels[unsure, m] = assign_reference(x[unsure, m * S : (m + 1) * S], centroids[m : m + 1])[:, 0]


def _least_of_few(sub: Tensor, table: Tensor, labels: Tensor) -> None:
    """Find minima of many sub-spaces by whole-array passes; a comparison finds the lowest index."""
    M, K, _ = table.shape
    step = max(1, _TILE // (K * sub.shape[1]))
    countdown = torch.arange(K, 0, -1, dtype=torch.uint8, device="cpu")[:, None]  # [K, 1]
    for m in range(0, M, step):
        distance = matrix_product(torch.bmm, table[m : m + step], sub[m : m + step].mT)  # [m, K, n]
        at_least = distance == distance.amin(1, keepdim=True)
        labels[:, m : m + step] = (K - (at_least.view(torch.uint8) * countdown).amax(1)).T


def _least_of_many(sub: Tensor, table: Tensor, labels: Tensor) -> None:
    """Find minima by sub-space with numpy's argmin, which is vectorized along rows, unlike torch's."""
    distance = torch.empty((sub.shape[1], table.shape[1]), dtype=torch.float32, device="cpu")
    out = labels.numpy()
    for m in range(len(table)):
        matrix_product(torch.mm, sub[m], table[m].T, out=distance)
        out[:, m] = distance.numpy().argmin(1)


def _shapes(x: Tensor, centroids: Tensor, exact: bool = False) -> Tensor:
    return x.new_empty((x.shape[0], centroids.shape[0]), dtype=label_dtype(centroids.shape[1]))


def inputs_of(N: int, M: int, K: int, S: int, device: str) -> tuple[Tensor, Tensor]:
    """Return rows (N, M*S) and centroids (M, K, S) of one distribution."""
    centroids = anisotropic(K, M * S, seed=1).view(K, M, S).transpose(0, 1).contiguous()
    return anisotropic(N, M * S).to(device), centroids.to(device)


def tied_inputs(device: str) -> tuple[Tensor, Tensor]:
    """Return rows and centroids of zeros and ones, many of them equal."""
    rows = torch.randint(0, 2, (53, 8), generator=generator(), device="cpu").float()
    return rows.to(device), rows[:16].view(16, 2, 4).transpose(0, 1).contiguous().to(device)


def half_inputs(dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    x, centroids = inputs_of(41, 4, 16, 3, device)
    return x.to(dtype), centroids


_SIZES = [(0, 2, 4, 3), (1, 1, 1, 1), (37, 3, 16, 4), (1031, 5, 17, 3), (1031, 2, 256, 8), (29, 1, 257, 5)]
_WIDE = [(7, 2, 3, 65), (19, 1, 300, 64), (23, 2, 129, 33), (35, 9, 2, 2)]


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor, bool]]:
    for size in _SIZES + _WIDE:
        yield *inputs_of(*size, device), False
    for size in [
        (0, 2, 4, 3),
        (1, 1, 1, 1),
        (67, 3, 16, 4),
        (131, 2, 100, 8),
        (29, 1, 300, 5),
        (7, 2, 3, 65),
    ]:
        yield *inputs_of(*size, device), True
    for exact in (False, True):
        yield *tied_inputs(device), exact
    for dtype in (torch.float16, torch.bfloat16):
        yield *half_inputs(dtype, device), dtype == torch.float16


_op = define_op(
    "assign(Tensor x, Tensor centroids, bool exact) -> Tensor",
    reference=assign_reference,
    cpu=_cpu,
    shapes=_shapes,
    loops="gpuzip.loops.assign:assign",
    kernel="gpuzip.kernels.assign:assign",
    samples=_samples,
    agreement="nearest",
)


def assign(x: Tensor, centroids: Tensor, exact: bool = False) -> Tensor:
    """Find the nearest centroid (squared L2) of every sub-vector; the lowest index wins a tie.

    x (N, M*S) float32, float16 or bfloat16, centroids (M, K, S) float32 -> (N, M), uint8 if K <= 256, else
    int32. On every device an index may differ from the reference's only if two distances are within 1e-5 of
    (distance + |x|^2). With `exact`, only if they are within the float32 rounding of squared differences:
    where the fast product cannot tell two centroids apart, differences are compared.
    Source: Lloyd 1957;
    FAISS ProductQuantizer.
    """
    labels: Tensor = _op(x, centroids, exact)
    return labels
