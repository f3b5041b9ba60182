"""Exact top-k with a fixed order of ties, by the maxima of groups."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator

_GROUP = 64
_LOW = 0xFFFFFFFF


def _reference(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values, ids = torch.sort(scores, dim=1, descending=True, stable=True)
    return values[:, :k].contiguous(), ids[:, :k].contiguous()


def _cpu(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the best k groups, then the best k of their members.

    Fewer than k groups hold a score above the k-th best, so the k best groups include all of these. Ties with
    the k-th best with the lowest ids are in the lowest groups that reach it.
    """
    Q, N = scores.shape
    if N <= 4 * _GROUP or k * _GROUP >= N:
        return _by_keys(scores, k)
    padded = torch.nn.functional.pad(scores, (0, -N % _GROUP), value=float("-inf"))
    grouped = padded.view(Q, -1, _GROUP)
    _, groups = _by_keys(grouped.amax(-1), k)
    groups = groups.sort(1).values  # members are then in the order of ids
    members = torch.gather(grouped, 1, groups[:, :, None].expand(-1, -1, _GROUP)).view(Q, -1)
    values, at = _by_keys(members, k)
    return values, torch.gather(groups, 1, at // _GROUP) * _GROUP + at % _GROUP


def _by_keys(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Order by unique 64-bit keys, score then lowest position, so that torch.topk sees no ties."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns -0.0 into 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    keys = (ordered.long() << 32) | (_LOW - torch.arange(scores.shape[1], device=scores.device))
    ids = _LOW - (torch.topk(keys, k, dim=1).values & _LOW)
    return torch.gather(scores, 1, ids), ids


def _shapes(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    Q = scores.shape[0]
    return scores.new_empty((Q, k)), scores.new_empty((Q, k), dtype=torch.int64)


def _samples(device: str) -> Iterator[tuple[Tensor, int]]:
    sizes = [(1, 1, 1), (3, 37, 5), (2, 37, 37), (5, 1031, 10), (1, 4099, 3), (2, 2500, 100), (2, 70_001, 4)]
    sizes += [(1, 70_001, 1100), (1, 5000, 1030), (2, 8192, 500)]  # more than one GPU program takes
    for Q, N, k in sizes:
        scores = torch.randn(Q, N, generator=generator(N))
        yield scores.to(device), k
        yield scores.mul(2).round().div(2).to(device), k  # many ties, and both zeros
    yield torch.full((2, 3000), float("-inf")).to(device), 7


_op = define_op(
    "topk(Tensor scores, int k) -> (Tensor, Tensor)",
    reference=_reference,
    cpu=_cpu,
    loops="gpuzip.loops.topk:topk",
    shapes=_shapes,
    kernel="gpuzip.kernels.topk:topk",
    samples=_samples,
    agreement="exact",
)


def topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the k highest scores of each row, in descending order; ties are ordered by id.

    scores (Q, N) float32 without NaN, 1 <= k <= N -> values (Q, k) float32, ids (Q, k) int64. Exact.
    """
    values, ids = _op(scores, k)
    return values, ids
