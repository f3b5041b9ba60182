"""Exact nearest rows of a matrix that comes in blocks, so that it need not fit in memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip.ops import topk

_BLOCK = 4096  # rows scored at a time


def nearest(
    blocks: Iterable[tuple[int, Tensor]], queries: Tensor, k: int, metric: str, mask: Tensor | None = None
) -> Tensor:
    """Ids of the k nearest rows per query, (Q, k) int64, among those that a mask (N,) allows.

    blocks: first id and rows, (n, D) float, of consecutive blocks. queries: (Q, D) float32.
    """
    best = queries.new_full((len(queries), k), float("-inf"))
    ids = torch.zeros((len(queries), k), dtype=torch.int64, device=queries.device)
    for start, block in blocks:
        for first, part in zip(range(start, start + len(block), _BLOCK), block.split(_BLOCK), strict=True):
            scores = _scores(queries, part.to(queries.device).float(), metric)
            if mask is not None:
                scores[:, ~mask[first : first + len(part)]] = float("-inf")
            own, own_at = topk(scores, min(k, len(part)))
            best, at = topk(torch.cat([best, own], 1), k)
            ids = torch.cat([ids, own_at + first], 1).gather(1, at)
    return ids


def _scores(queries: Tensor, rows: Tensor, metric: str) -> Tensor:
    """(Q, n), greater is nearer; each query's scores are shifted or scaled by a constant of its own."""
    if metric == "cosine":
        rows = torch.nn.functional.normalize(rows)
    products = matrix_product(torch.matmul, queries, rows.T)
    return products if metric != "l2" else 2 * products - rows.square().sum(1)
