"""Rows as sums of codewords, one a stage: the codes of a row, and codebooks that fit rows."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip.ops import beam_search, centroid_sums, centroid_update
from gpuzip.parallel import map_blocks

_BLOCK_BYTES = {"cpu": 16 << 20, "cuda": 1 << 30}  # products of rows and codewords that exist at a time
_SPLITS = 1234  # the seed of what splits empty cells


def cross_bytes(P: int, M: int, K: int) -> int:
    """Bytes of `cross_products`."""
    return 4 * P * (M * (M - 1) // 2) * K * K


def cross_products(codebooks: Tensor) -> Tensor:
    """(P, M, K, S) float32 -> (P, M*(M-1)/2, K, K) float32: 2 c.c' of stages j < m, for `beam_search`."""
    P, M, K, _ = codebooks.shape
    cross = codebooks.new_empty((P, M * (M - 1) // 2, K, K))
    for m in range(M):
        first = m * (m - 1) // 2
        for j in range(m):
            wide = codebooks[:, j].double() @ codebooks[:, m].double().mT
            cross[:, first + j] = wide.mul_(2)
    return cross


def nearest_sums(x: Tensor, codebooks: Tensor, cross: Tensor, beam: int, exact: bool = True) -> Tensor:
    """Codes of the sums of codewords nearest to rows, as far as a beam finds them.

    (N, P*S) float, (P, M, K, S) float32 -> (N, P*M), uint8 when K <= 256, else int32.
    exact: products are added up in float64, so that a row's codes do not depend on the rows beside it; else
    in float32, in half the time.
    """
    P, M, K, _ = codebooks.shape
    labels = torch.empty((len(x), P * M), dtype=torch.uint8 if K <= 256 else torch.int32, device=x.device)
    table = _Table(codebooks, torch.float64 if exact else torch.float32)

    def one_block(start: int, stop: int) -> None:
        labels[start:stop] = beam_search(table.costs(x[start:stop]), cross, beam)

    step = max(16, _BLOCK_BYTES[x.device.type] // (12 * P * M * K))
    if x.device.type == "cpu":
        map_blocks(one_block, len(x), step)
    else:
        for start in range(0, len(x), step):
            one_block(start, min(start + step, len(x)))
    return labels


class _Table:
    """Codewords as columns of a product, with their squared norms."""

    def __init__(self, codebooks: Tensor, dtype: torch.dtype) -> None:
        P, M, K, S = codebooks.shape
        self._shape, self._columns = (P, M, K), codebooks.reshape(P, M * K, S).to(dtype).mT.contiguous()
        self._squares = self._columns.square().sum(1, keepdim=True)  # [P, 1, M*K]

    def costs(self, x: Tensor) -> Tensor:
        """(n, P*S) -> (n, P, M, K) float32: |c|^2 - 2 c.x."""
        n, P = len(x), self._shape[0]
        parts = x.to(self._columns.dtype).view(n, P, -1).transpose(0, 1)
        costs = torch.baddbmm(self._squares, parts, self._columns, alpha=-2)
        return (
            torch.empty((n, P, costs.shape[2]), device=x.device)
            .copy_(costs.transpose(0, 1))
            .view(n, *self._shape)
        )


def sums(labels: Tensor, codebooks: Tensor) -> Tensor:
    """The sum of each row's codewords, in order of the stages: (N, P*M), (P, M, K, S) -> (N, P*S)."""
    P, M, K, S = codebooks.shape
    entries = labels.long() + torch.arange(0, P * M * K, K, device=labels.device)
    bags = entries.view(len(labels) * P, M)
    return torch.nn.functional.embedding_bag(bags, codebooks.reshape(-1, S), mode="sum").view(-1, P * S)


def trained(
    x: Tensor, P: int, M: int, K: int, beam: int, seed: int = 0, n_iter: int = 10, refine: int = 4
) -> Tensor:
    """(N, P*S) float32, N >= K -> codebooks (P, M, K, S) float32.

    k-means of what the stages before leave over, a stage at a time; then `refine` times the codes of all
    rows, and every codebook in turn moved to where it is best for these codes and the others.
    """
    left, stages = x.clone(), []
    for m in range(M):
        words = _clustered(left, P, K, seed + m, n_iter)
        stages.append(words)
        left -= sums(_nearest(left, words), words[:, None])
    codebooks = torch.stack(stages, 1)
    for _ in range(refine):
        labels = nearest_sums(x, codebooks, cross_products(codebooks), beam, exact=False)
        codebooks = _refitted(x, labels, codebooks)
    return codebooks


def _nearest(x: Tensor, words: Tensor) -> Tensor:
    """(N, P*S), (P, K, S) -> (N, P)."""
    return nearest_sums(x, words[:, None], words.new_empty((len(words), 0, *words.shape[1:2] * 2)), 1, False)


def _clustered(x: Tensor, P: int, K: int, seed: int, n_iter: int) -> Tensor:
    """Lloyd's k-means whose distances are matrix products, which long rows need: (N, P*S) -> (P, K, S)."""
    start = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:K]
    words = x[start.to(x.device)].view(K, P, -1).transpose(0, 1).contiguous()
    for i in range(n_iter):
        words = centroid_update(*centroid_sums(x, _nearest(x, words), K), _SPLITS + i)
    return words


def _refitted(x: Tensor, labels: Tensor, codebooks: Tensor) -> Tensor:
    """Codebooks nearer to rows of these codes: each stage's least squares given the others, in turn."""
    P, M, K, _ = codebooks.shape
    codebooks, left = codebooks.clone(), x - sums(labels, codebooks)
    for m in range(M):
        own = labels.view(-1, P, M)[:, :, m].contiguous()
        total, count = centroid_sums(left, own, K)
        step = total / count.clamp(min=1)[:, :, None]  # codewords of no row stay
        codebooks[:, m] += step
        left -= sums(own, step[:, None])
    return codebooks
