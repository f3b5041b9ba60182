"""Scalar codes of equal steps, one byte per value."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._dispatch import loops_or
from gpuzip.ops._samples import generator
from gpuzip.ops.bits import unpack_bits

_TILE = 1 << 16  # values per block, whose temporaries stay in L2


def _reference(x: Tensor, start: Tensor, step: Tensor, top: int) -> Tensor:
    return ((x.float() - start) / step).floor().clamp(0, top).to(torch.uint8)


def _cpu(x: Tensor, start: Tensor, step: Tensor, top: int) -> Tensor:
    N, D = x.shape
    out = torch.empty((N, D), dtype=torch.uint8, device="cpu")

    def one_block(first: int, stop: int) -> None:
        out[first:stop] = (x[first:stop].float() - start).div_(step).floor_().clamp_(0, top)

    map_blocks(one_block, N, max(1, _TILE // max(1, D)))
    return out


def _shapes(x: Tensor, start: Tensor, step: Tensor, top: int) -> Tensor:
    return x.new_empty(x.shape, dtype=torch.uint8)


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor, Tensor, int]]:
    dtypes = (torch.float32, torch.float16, torch.bfloat16)
    sizes = [
        (0, 3, 255, True),
        (1, 1, 1, False),
        (37, 13, 255, True),
        (19, 31, 15, False),
        (41, 600, 63, True),
    ]
    for i, (N, D, top, per_column) in enumerate([*sizes, (300, 150, 255, False), (7, 5, 3, True)]):
        g = generator(D)
        C = D if per_column else 1
        start, step = torch.randn(C, generator=g) - 2, torch.rand(C, generator=g) / 64 + 1e-3
        x = torch.randn(N, D, generator=g)
        cells = torch.randint(0, top + 1, (N, D), generator=g)
        x = torch.where(torch.rand(N, D, generator=g) < 0.3, start + cells * step, x)  # start of a step
        extremes = torch.tensor([6e4, -6e4, 0.0, -0.0, 1e-7])
        x.view(-1)[: min(N * D, 5)] = extremes[: min(N * D, 5)]
        yield x.to(dtypes[i % 3]).to(device), start.to(device), step.to(device), top
        if N > 1:
            yield x.T.contiguous().T.to(device), start.to(device), step.to(device), top


_op = define_op(
    "scalar_encode(Tensor x, Tensor start, Tensor step, int top) -> Tensor",
    reference=_reference,
    cpu=_cpu,
    loops="gpuzip.loops.scalar_encode:scalar_encode",
    shapes=_shapes,
    kernel="gpuzip.kernels.scalar_encode:scalar_encode",
    samples=_samples,
    agreement="exact",
)


def scalar_encode(x: Tensor, start: Tensor, step: Tensor, top: int = 255) -> Tensor:
    """Compute the step that contains each value: clamp(floor((x - start) / step), 0, top).

    x (N, D) float32, float16 or bfloat16 without NaN, computed in float32 with one rounding per operation;
    start and step (C,) float32, one for all columns (C = 1) or one per column (C = D), step above 0; top 1 to
    255 -> (N, D) uint8. Exact on every device.
    Source: FAISS ScalarQuantizer. With 255 steps and top 255 the bytes equal sentence-transformers'
    quantize_embeddings.
    """
    codes: Tensor = _op(x, start, step, top)
    return codes


def _bytes_plain(x: Tensor, start: Tensor, step: Tensor, top: int, flip: int, out: Tensor) -> float:
    def one_block(first: int, stop: int) -> float:
        rows = x[first:stop].float()
        out[first:stop] = (rows - start).div_(step).floor_().clamp_(0, top).to(torch.uint8) ^ flip
        return float(torch.linalg.vector_norm(rows)) ** 2

    return sum(map_blocks(one_block, len(x), max(1, _TILE // max(1, x.shape[1]))))


def _decode_plain(packed: Tensor, start: Tensor, step: Tensor, bits: int, flip: int) -> Tensor:
    N, D = len(packed), len(start)
    out = uninitialized(N, D, torch.float32)

    def one_block(first: int, stop: int) -> None:
        codes = unpack_bits(packed[first:stop] ^ flip, D, bits)
        rows = out[first:stop].copy_(codes)
        rows.add_(0.5).mul_(step).add_(start)

    map_blocks(one_block, N, max(1, _TILE // max(1, D)))
    return out


_bytes = loops_or(_bytes_plain, "gpuzip.loops.scalar_encode:scalar_bytes")
_decode = loops_or(_decode_plain, "gpuzip.loops.scalar_encode:scalar_decode")


def scalar_bytes(x: Tensor, start: Tensor, step: Tensor, top: int, flip: int, out: Tensor) -> float:
    """Write `scalar_encode(x, start, step, top) ^ flip` on a CPU and return the sum of squares, in one pass.

    out (N, D) uint8, contiguous. NaN has any code. The sum is as in `bits_above`.
    """
    squares: float = _bytes(x, start, step, top, flip, out)
    return squares


def scalar_decode(packed: Tensor, start: Tensor, step: Tensor, bits: int, flip: int = 0) -> Tensor:
    """Compute (code + 0.5) * step + start of packed codes of 4 or 8 bits on a CPU, with a rounding each.

    packed (N, B) uint8, each byte xor `flip` first; start and step (D,) float32 -> (N, D) float32. Exact.
    """
    rows: Tensor = _decode(packed, start, step, bits, flip)
    return rows
