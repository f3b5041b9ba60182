"""RaBitQ codes: the grid point whose direction is nearest to that of a row."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip._core.device import is_gpu
from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._dispatch import loops_or
from gpuzip.ops._samples import anisotropic
from gpuzip.ops.bits import pack_bits

_TILE = 1 << 16  # values per block, whose temporaries stay in L2
_LARGEST = 2.0**126

# Scales of the grid, relative to the one that puts a row's largest value on its edge: from 1 / 1.1, which
# leaves some of the grid unused, to 10, which clips spikes; then finer ones around the best.
_COARSE = [10.0 ** (i / 15) * 1.1 ** (i / 15 - 1) for i in range(16)]
_FINE = [11.0 ** ((i - 4.5) / 75) for i in range(1, 9)]


def _reference(x: Tensor, center: Tensor, coarse: Tensor, fine: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    offset = x.float() - center
    size, top = offset.abs(), float((1 << (bits - 1)) - 1)
    odd = 2 * _cells(size, _stretch(size, coarse, fine, top), top) + 1
    signed = torch.where(offset >= 0, odd, -odd)
    codes = ((signed + 2 * top + 1) / 2).to(torch.uint8)
    wide, signed = offset.double(), signed.double()
    sums = (wide * wide, wide.abs(), signed * wide, signed * signed, center.double() * wide)
    return codes, torch.stack([part.sum(1) for part in sums], 1).float()


def _stretch(size: Tensor, coarse: Tensor, fine: Tensor, top: float) -> Tensor:
    """(N, D) absolute values -> (N, 1): the factor that turns values into cell numbers."""
    largest = size.amax(1, keepdim=True)
    edge = torch.where(largest > 0, (top + 1) / largest, 0)
    best, chosen = torch.full_like(edge, -1, dtype=torch.float64), edge
    if top == 0:
        return edge
    for scales in (coarse, fine):
        middle = edge if scales is coarse else chosen
        for scale in scales:
            stretch = (middle * scale).clamp(max=_LARGEST)
            odd = (2 * _cells(size, stretch, top) + 1).double()
            cosine = (odd * size).sum(1, keepdim=True).square() / odd.square().sum(1, keepdim=True)
            chosen = torch.where(cosine > best, stretch, chosen)
            best = torch.maximum(best, cosine)
    return chosen


def _cells(size: Tensor, stretch: Tensor, top: float) -> Tensor:
    return (size * stretch).clamp(max=top).floor()


def _cpu(x: Tensor, center: Tensor, coarse: Tensor, fine: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    N, D = x.shape
    codes, sums = (
        torch.empty((N, D), dtype=torch.uint8, device="cpu"),
        torch.empty((N, 5), dtype=torch.float32, device="cpu"),
    )

    def one_block(start: int, stop: int) -> None:
        codes[start:stop], sums[start:stop] = _reference(x[start:stop], center, coarse, fine, bits)

    map_blocks(one_block, N, max(1, _TILE // D))
    return codes, sums


def _shapes(x: Tensor, center: Tensor, coarse: Tensor, fine: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape, dtype=torch.uint8), x.new_empty((x.shape[0], 5), dtype=torch.float32)


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, int]]:
    single, half, brain = torch.float32, torch.float16, torch.bfloat16
    sizes = [
        (37, 13, 4, single),
        (1, 1, 3, single),
        (19, 31, 1, half),
        (5, 600, 2, brain),
        (23, 64, 8, single),
        (11, 7, 5, half),
        (0, 3, 4, single),
        (3, 130, 6, single),
    ]
    for i, (N, D, bits, dtype) in enumerate(sizes):
        x = anisotropic(max(1, N), D)[:N]
        if N > 10:
            x[0], x[1], x[2] = 0.0, x[1] * 1e-30, 0.25  # zeros, tiny values, equal values
            x[3, 1:] = 0.0  # on an axis
        if dtype == single and N > 4:
            x[4] *= 1e17
        center = x.mean(0) if i % 2 else torch.zeros(D)
        scales = torch.tensor(_COARSE), torch.tensor(_FINE)
        yield x.to(device, dtype), center.to(device), scales[0].to(device), scales[1].to(device), bits


_op = define_op(
    "rabitq_encode(Tensor x, Tensor center, Tensor coarse, Tensor fine, int bits) -> (Tensor, Tensor)",
    reference=_reference,
    cpu=_cpu,
    loops="gpuzip.loops.rabitq_encode:rabitq_encode",
    shapes=_shapes,
    kernel="gpuzip.kernels.rabitq_encode:rabitq_encode",
    samples=_samples,
    agreement="close",
)


def rabitq_encode(x: Tensor, center: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Find the grid point whose direction is nearest to that of x - center, for every row.

    The grid holds the odd integers between -2**bits and 2**bits; for bits = 1 these are the signs.
    x (N, D) float32, float16 or bfloat16, center (D,) float32, bits 1 to 8 -> codes u (N, D) uint8, for the
    point g = 2 * u + 1 - 2**bits, and sums (N, 5) float32 with o = x - center: |o|^2, sum of |o[d]|, <g, o>,
    |g|^2, <center, o>. Candidates are the points to which o rounds on scaled grids: 16 scales over a factor
    of 11, then 8 around the best. Codes are the same on every device; sums agree to float32 rounding.
    Source: Gao et al., "Practical and asymptotically optimal quantization of high-dimensional vectors in
    Euclidean space for approximate nearest neighbor search", 2024.
    """
    coarse, fine = (torch.tensor(scales, dtype=torch.float32, device=x.device) for scales in (_COARSE, _FINE))
    codes, sums = _op(x, center, coarse, fine, bits)
    return codes, sums


def _signs_plain(x: Tensor, center: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    codes, sums = rabitq_encode(x, center, 1)
    return pack_bits(codes, 1), sums, zero_rows(x)


_signs_cpu = loops_or(_signs_plain, "gpuzip.loops.rabitq_encode:rabitq_signs")


def rabitq_signs(x: Tensor, center: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `rabitq_encode(x, center, 1)` with the signs packed by `pack_bits`, and (N,) bool `zero_rows`.

    On a CPU in one pass over x.
    """
    signs = _signs_plain if is_gpu(x.device) else _signs_cpu
    packed, sums, zeros = signs(x, center)
    return packed, sums, zeros


def zero_rows(x: Tensor) -> Tensor:
    """Return (N,) bool: which rows hold nothing but zeros."""
    return (x.amax(1) == 0) & (x.amin(1) == 0)
