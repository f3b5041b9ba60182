"""Scalar codes: the interval of a small ascending table that contains each value."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._samples import generator
from gpuzip.ops.bits import code_bytes, pack_bits

_FEW = 15  # up to so many boundaries, comparing with each is faster than a search
_TILE = 1 << 16  # values per block, whose temporaries stay in L2


def _reference(x: Tensor, boundaries: Tensor) -> Tensor:
    columns = [
        torch.bucketize(column, boundaries[d if len(boundaries) > 1 else 0].contiguous())
        for d, column in enumerate(x.float().T.contiguous())
    ]
    return torch.stack(columns, 1).to(torch.uint8) if columns else x.new_empty(x.shape, dtype=torch.uint8)


def _packed_reference(x: Tensor, boundaries: Tensor, nbits: int) -> Tensor:
    return pack_bits(_reference(x, boundaries), nbits)


def _cpu(x: Tensor, boundaries: Tensor) -> Tensor:
    return _packed_cpu(x, boundaries, 8)


def _packed_cpu(x: Tensor, boundaries: Tensor, nbits: int) -> Tensor:
    N, D = x.shape
    out = torch.empty((N, code_bytes(D, nbits)), dtype=torch.uint8, device="cpu")
    count = _count if boundaries.shape[1] <= _FEW else _search

    def one_block(start: int, stop: int) -> None:
        out[start:stop] = pack_bits(count(x[start:stop].float(), boundaries), nbits)

    map_blocks(one_block, N, max(1, _TILE // max(1, D)))
    return out


def _count(x: Tensor, boundaries: Tensor) -> Tensor:
    """Count all boundaries minus those that are >= x, so that NaN counts as above all."""
    counts = torch.full(x.shape, boundaries.shape[1], dtype=torch.uint8, device="cpu")
    for boundary in boundaries.T:
        counts -= (boundary >= x).view(torch.uint8)
    return counts


def _search(x: Tensor, boundaries: Tensor) -> Tensor:
    if len(boundaries) == 1:
        return torch.bucketize(x, boundaries[0].contiguous(), out_int32=True).to(torch.uint8)
    counts = torch.searchsorted(boundaries.contiguous(), x.T.contiguous(), out_int32=True)
    return counts.to(torch.uint8).T.contiguous()


def _shapes(x: Tensor, boundaries: Tensor) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.uint8)


def _packed_shapes(x: Tensor, boundaries: Tensor, nbits: int) -> Tensor:
    return x.new_empty((x.shape[0], code_bytes(x.shape[1], nbits)), dtype=torch.uint8)


def _inputs(sizes: list[tuple[int, int, int, bool]], device: str) -> Iterator[tuple[Tensor, Tensor]]:
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    for i, (N, D, L, per_column) in enumerate(sizes):
        g = generator(L)
        boundaries = torch.randn(D if per_column else 1, L, generator=g).mul(4).round().div(4).sort(1).values
        boundaries[:, -1:] += 0.1  # not a float16 value, so that only float32 comparison is right
        x = torch.randn(N, D, generator=g)
        x = torch.where(torch.rand(N, D, generator=g) < 0.3, x.mul(4).round().div(4), x)  # many on boundaries
        special = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0])
        x.view(-1)[: min(N * D, 5)] = special[: min(N * D, 5)]
        yield x.to(dtypes[i % 3]).to(device), boundaries.to(device)


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor]]:
    sizes = [(0, 3, 3, False), (1, 1, 1, False), (37, 13, 3, True), (19, 31, 15, False), (41, 10, 16, False)]
    more = [
        (67, 12, 31, True),
        (9, 5, 32, True),
        (131, 48, 255, False),
        (40, 6, 255, True),
        (300, 150, 7, True),
    ]
    yield from _inputs(sizes + more + [(0, 3, 3, True)], device)


def _packed_samples(device: str) -> Iterator[tuple[Tensor, Tensor, int]]:
    sizes = [(0, 3, 1, False), (1, 1, 1, False), (37, 13, 1, True), (33, 31, 3, False), (131, 31, 15, True)]
    more = [
        (67, 12, 3, True),
        (19, 32, 1, False),
        (29, 48, 15, False),
        (23, 10, 15, True),
        (9, 31, 100, True),
    ]
    bits = {1: 1, 3: 2, 15: 4, 100: 8}
    for x, boundaries in _inputs(sizes + more, device):
        yield x, boundaries, bits[boundaries.shape[1]]


_bucketize = define_op(
    "bucketize(Tensor x, Tensor boundaries) -> Tensor",
    reference=_reference,
    cpu=_cpu,
    loops="gpuzip.loops.bucketize:bucketize",
    shapes=_shapes,
    kernel="gpuzip.kernels.bucketize:bucketize",
    samples=_samples,
    agreement="exact",
)
_bucketize_packed = define_op(
    "bucketize_packed(Tensor x, Tensor boundaries, int nbits) -> Tensor",
    reference=_packed_reference,
    cpu=_packed_cpu,
    shapes=_packed_shapes,
    kernel="gpuzip.kernels.bucketize:bucketize_packed",
    samples=_packed_samples,
    agreement="exact",
)


def bucketize(x: Tensor, boundaries: Tensor) -> Tensor:
    """Count the boundaries strictly below each value, as `torch.bucketize(x, b)` per column. Exact.

    x (N, D) float32, float16 or bfloat16, compared as float32; boundaries (C, L) float32, ascending and
    without NaN, one row for all columns (C = 1) or one per column (C = D), 1 <= L <= 255 -> (N, D) uint8. An
    equal boundary does not count, -0.0 equals 0.0, and NaN is above every boundary.
    """
    counts: Tensor = _bucketize(x, boundaries)
    return counts


def bucketize_packed(x: Tensor, boundaries: Tensor, nbits: int) -> Tensor:
    """Compute `pack_bits(bucketize(x, boundaries), nbits)`, (N, B) uint8.

    nbits is 1, 2, 4 or 8, and L < 2**nbits. On a GPU the counts are not written to memory.
    """
    packed: Tensor = _bucketize_packed(x, boundaries, nbits)
    return packed
