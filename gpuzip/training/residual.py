"""Rows as sums of codewords, one per stage: encoding, decoding and training of codebooks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks
from gpuzip.ops import beam_search, centroid_sums, centroid_update, topk
from gpuzip.training.kmeans import SPLIT_SEED

_BLOCK_BYTES = {"cpu": 16 << 20, "cuda": 1 << 30}  # products of rows and codewords per block
_POINTS = 256  # most points per codeword for k-means
_START = 0.25  # k-means starts from points moved to this share of their distance from the mean
_HELD = 40  # rows that `_refitted` adds to each codeword


def cross_bytes(P: int, M: int, K: int) -> int:
    """Bytes of `cross_products`."""
    return 4 * P * (M * (M - 1) // 2) * K * K


def cross_products(codebooks: Tensor) -> Tensor:
    """(P, M, K, S) float32 -> (P, M*(M-1)/2, K, K) float32: 2 c.c' for stages j < m, for `beam_search`."""
    P, M, K, _ = codebooks.shape
    cross = codebooks.new_empty((P, M * (M - 1) // 2, K, K))
    for m in range(M):
        first = m * (m - 1) // 2
        for j in range(m):
            wide = matrix_product(torch.matmul, codebooks[:, j].double(), codebooks[:, m].double().mT)
            cross[:, first + j] = wide.mul_(2)
    return cross


def nearest_sums(x: Tensor, words: Codewords, cross: Tensor, beam: int) -> Tensor:
    """Codes of the sums of codewords nearest to rows, as found by beam search.

    (N, P*S) float, P parts of M stages of K words -> (N, P*M) uint8 if K <= 256, else int32.
    """
    P, M, K = words.shape
    labels = torch.empty((len(x), P * M), dtype=torch.uint8 if K <= 256 else torch.int32, device=x.device)

    def one_block(start: int, stop: int) -> None:
        labels[start:stop] = beam_search(words.costs(x[start:stop]), cross, beam)

    _in_blocks(one_block, len(x), 12 * P * M * K, x.device)
    return labels


def _in_blocks(one_block: Callable[[int, int], None], n: int, row_bytes: int, device: torch.device) -> None:
    """Call `one_block` for blocks of n rows of `row_bytes` bytes each; on a CPU in threads."""
    step = max(16, _BLOCK_BYTES[device.type] // row_bytes)
    if device.type == "cpu":
        map_blocks(one_block, n, step)
        return
    for start in range(0, n, step):
        one_block(start, min(start + step, n))


class Codewords:
    """Codewords (P, M, K, S) as columns of a matrix, with their squared norms.

    exact: sum products in float64, so that a row's codes do not depend on the other rows; float32 takes half
    the time.
    """

    shape: tuple[int, int, int]

    def __init__(self, codebooks: Tensor, exact: bool = True) -> None:
        P, M, K, S = codebooks.shape
        dtype = torch.float64 if exact else torch.float32
        self.shape, self._columns = (P, M, K), codebooks.reshape(P, M * K, S).to(dtype).mT.contiguous()
        self._squares = self._columns.square().sum(1, keepdim=True)  # [P, 1, M*K]

    def costs(self, x: Tensor) -> Tensor:
        """(n, P*S) -> (n, P, M, K) float32: |c|^2 - 2 c.x."""
        n, P = len(x), self.shape[0]
        parts = x.to(self._columns.dtype).view(n, P, -1).transpose(0, 1)
        costs = matrix_product(torch.baddbmm, self._squares, parts, self._columns, alpha=-2)
        return (
            torch.empty((n, P, costs.shape[2]), device=x.device, dtype=torch.float32)
            .copy_(costs.transpose(0, 1))
            .view(n, *self.shape)
        )


def sums(labels: Tensor, codebooks: Tensor) -> Tensor:
    """The sum of each row's codewords, stage by stage: (N, P*M), (P, M, K, S) -> (N, P*S)."""
    P, M, K, S = codebooks.shape
    entries = labels.long() + torch.arange(0, P * M * K, K, device=labels.device)
    bags = entries.view(len(labels) * P, M)
    return torch.nn.functional.embedding_bag(bags, codebooks.reshape(-1, S), mode="sum").view(-1, P * S)


def trained(
    x: Tensor,
    P: int,
    M: int,
    K: int,
    beam: int,
    seed: int = 0,
    n_iter: int = 10,
    refine: int = 2,
    report: Callable[[int], object] = lambda done: None,
) -> Tensor:
    """(N, P*S) float32, N >= K -> codebooks (P, M, K, S) float32.

    Each stage is a k-means of the residuals of the stages before. A row has `beam` residuals, those of its
    best partial codes: they vary more than the best one alone, so codewords suit other rows better. Then each
    of `refine` rounds encodes all rows and moves every codebook to its least-squares position given the
    others. Keeps N * beam * P * S floats. report: called with the stages and rounds that are done.
    """
    left, stages = x.view(len(x), 1, P, -1), []
    for m in range(M):
        words = _clustered(_some(left.flatten(0, 1).flatten(1), K, seed + m), P, K, seed + m, n_iter)
        stages.append(words)
        left = _left_over(left, words, beam) if m + 1 < M else left
        report(m + 1)
    codebooks = torch.stack(stages, 1)
    for i in range(refine):
        labels = nearest_sums(x, Codewords(codebooks, exact=False), cross_products(codebooks), beam)
        codebooks = _refitted(x, labels, codebooks)
        report(M + i + 1)
    return codebooks


def _some(points: Tensor, K: int, seed: int) -> Tensor:
    """A sample of at most _POINTS * K points, without repetition."""
    if len(points) <= _POINTS * K:
        return points
    drawn = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed), device="cpu")[
        : _POINTS * K
    ]
    return points[drawn.sort().values.to(points.device)]


def _left_over(left: Tensor, words: Tensor, beam: int) -> Tensor:
    """Residuals after one more stage: (N, L, P, S), (P, K, S) -> (N, L', P, S).

    Keeps the L' = min(beam, L*K) best partial codes per row and part; in place if L' is L > 1.
    """
    N, L, P, S = left.shape
    width = min(beam, L * words.shape[1])
    longer = left if width == L > 1 else left.new_empty((N, width, P, S))
    squares = words.square().sum(2)[:, None]  # [P, 1, K]

    def one_block(start: int, stop: int) -> None:
        parts = left[start:stop].permute(2, 0, 1, 3).flatten(1, 2)  # [P, n*L, S]
        distance = matrix_product(torch.baddbmm, squares, parts, words.mT, alpha=-2)
        distance += parts.square().sum(2, keepdim=True)
        _, at = topk(-distance.view(P * (stop - start), -1), width)
        at = at.view(P, stop - start, width)
        part, row = (
            torch.arange(P, device=at.device)[:, None, None],
            torch.arange(stop - start, device=at.device),
        )
        rest = parts[part, row[:, None] * L + at // len(words[0])] - words[part, at % len(words[0])]
        longer[start:stop] = rest.permute(1, 2, 0, 3)

    _in_blocks(one_block, N, 8 * P * L * words.shape[1], left.device)
    return longer


def _nearest(x: Tensor, words: Tensor) -> Tensor:
    """Nearest codeword per part: (N, P*S), (P, K, S) -> (N, P)."""
    none = words.new_empty((len(words), 0, *words.shape[1:2] * 2))
    return nearest_sums(x, Codewords(words[:, None], exact=False), none, 1)


def _clustered(x: Tensor, P: int, K: int, seed: int, n_iter: int) -> Tensor:
    """Lloyd's k-means with distances from matrix products, for long rows: (N, P*S) -> (P, K, S).

    It starts from random points, moved most of the way to the mean. In many dimensions points are nearer to
    the mean than to each other, so most unmoved points would stay alone in their clusters.
    """
    start = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed), device="cpu")[:K]
    mean = x.mean(0, dtype=torch.float64).float()
    words = mean + _START * (x[start.to(x.device)] - mean)
    words = words.view(K, P, -1).transpose(0, 1).contiguous()
    for i in range(n_iter):
        words = centroid_update(*centroid_sums(x, _nearest(x, words), K), SPLIT_SEED + i)
    return words


def _refitted(x: Tensor, labels: Tensor, codebooks: Tensor) -> Tensor:
    """Codebooks of less error for rows of these codes: least squares per stage, given the other stages.

    Each codeword counts as _HELD rows of its own, so that few rows do not pull it far.
    """
    P, M, K, _ = codebooks.shape
    codebooks, left = codebooks.clone(), x - sums(labels, codebooks)
    for m in range(M):
        own = labels.view(-1, P, M)[:, :, m].contiguous()
        total, count = centroid_sums(left, own, K)
        step = total / (count + _HELD)[:, :, None]
        codebooks[:, m] += step
        left -= sums(own, step[:, None])
    return codebooks
