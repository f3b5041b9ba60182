"""Codes of 1 to 16 bits packed into bytes, in FAISS's order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.ops._define import define_op
from gpuzip.ops._dispatch import loops_or
from gpuzip.ops._samples import random_codes

_TILE = 1 << 19  # values per block of comparisons
_GROUP = 8  # values that take whole bytes, however many bits they have


def code_bytes(M: int, nbits: int) -> int:
    """Return the bytes that M codes of nbits bits take."""
    return (M * nbits + 7) // 8


def pack_reference(values: Tensor, nbits: int) -> Tensor:
    N, M = values.shape
    bits = (values.int()[:, :, None] >> torch.arange(nbits, device=values.device)) & 1  # [N, M, nbits]
    padded = torch.zeros((N, code_bytes(M, nbits) * 8), dtype=torch.int32, device=values.device)
    padded[:, : M * nbits] = bits.reshape(N, M * nbits)
    weights = 1 << torch.arange(8, device=values.device)
    return (padded.view(N, code_bytes(M, nbits), 8) * weights).sum(-1).to(torch.uint8)


def _unpack_reference(packed: Tensor, M: int, nbits: int) -> Tensor:
    N, B = packed.shape
    bits = (packed.int()[:, :, None] >> torch.arange(8, device=packed.device)) & 1  # [N, B, 8]
    bits = bits.view(N, B * 8)[:, : M * nbits].view(N, M, nbits)
    weights = 1 << torch.arange(nbits, device=packed.device)
    return (bits * weights).sum(-1).to(torch.uint8 if nbits <= 8 else torch.int32)


def _pack_cpu(values: Tensor, nbits: int) -> Tensor:
    N, M = values.shape
    if 8 % nbits == 0:
        per_byte = 8 // nbits
        values = torch.nn.functional.pad(values.to(torch.uint8), (0, -M % per_byte))
        packed = values[:, ::per_byte].clone(memory_format=torch.contiguous_format)
        for i in range(1, per_byte):
            packed |= values[:, i::per_byte] << (i * nbits)
        return packed
    if M > _GROUP:  # values in groups that take whole bytes: as few steps for any number of them
        groups = torch.nn.functional.pad(values, (0, -M % _GROUP)).view(-1, _GROUP)
        whole = _pack_cpu(groups, nbits).view(N, -(-M // _GROUP) * nbits)
        return whole[:, : code_bytes(M, nbits)].contiguous()
    packed = torch.zeros((N, code_bytes(M, nbits)), dtype=torch.uint8, device="cpu")
    for m in range(M):
        first, shift = divmod(m * nbits, 8)
        word = values[:, m].int() << shift
        for byte in range(first, (m * nbits + nbits - 1) // 8 + 1):
            packed[:, byte] |= ((word >> (8 * (byte - first))) & 255).to(torch.uint8)
    return packed


def _unpack_cpu(packed: Tensor, M: int, nbits: int) -> Tensor:
    if 8 % nbits == 0:
        per_byte = 8 // nbits
        shifts = torch.arange(0, 8, nbits, dtype=torch.uint8, device="cpu")
        values = (packed[:, :, None] >> shifts) & ((1 << nbits) - 1)  # [N, B, per_byte]
        return values.view(len(packed), packed.shape[1] * per_byte)[:, :M].contiguous()
    if M > _GROUP:
        count = -(-M // _GROUP)
        whole = torch.nn.functional.pad(packed, (0, count * nbits - packed.shape[1])).view(-1, nbits)
        return _unpack_cpu(whole, _GROUP, nbits).view(len(packed), count * _GROUP)[:, :M].contiguous()
    values = torch.empty((len(packed), M), dtype=torch.uint8 if nbits <= 8 else torch.int32, device="cpu")
    for m in range(M):
        first, shift = divmod(m * nbits, 8)
        word = torch.zeros(len(packed), dtype=torch.int32, device="cpu")
        for byte in range(first, (m * nbits + nbits - 1) // 8 + 1):
            word |= packed[:, byte].int() << (8 * (byte - first))
        values[:, m] = (word >> shift) & ((1 << nbits) - 1)
    return values


def _pack_shapes(values: Tensor, nbits: int) -> Tensor:
    return values.new_empty((values.shape[0], code_bytes(values.shape[1], nbits)), dtype=torch.uint8)


def _unpack_shapes(packed: Tensor, M: int, nbits: int) -> Tensor:
    return packed.new_empty((packed.shape[0], M), dtype=torch.uint8 if nbits <= 8 else torch.int32)


_SIZES = [(0, 3, 4), (1, 1, 1), (37, 13, 1), (5, 7, 2), (19, 9, 3), (131, 31, 4), (33, 12, 5), (17, 11, 7)]
_WHOLE = [(67, 8, 4), (35, 16, 1), (65, 4, 2), (6, 2, 4), (1037, 16, 4), (9, 8, 1), (300, 32, 2)]  # no gaps
_WIDE = [(23, 5, 8), (29, 3, 9), (41, 7, 11), (13, 9, 12), (11, 4, 15), (31, 5, 16)]


def _pack_samples(device: str) -> Iterator[tuple[Tensor, int]]:
    for N, M, nbits in _SIZES + _WHOLE + _WIDE:
        yield random_codes(N, M, 1 << nbits).to(device), nbits


def _unpack_samples(device: str) -> Iterator[tuple[Tensor, int, int]]:
    for values, nbits in _pack_samples("cpu"):
        yield pack_reference(values, nbits).to(device), values.shape[1], nbits


_pack = define_op(
    "pack_bits(Tensor values, int nbits) -> Tensor",
    reference=pack_reference,
    cpu=_pack_cpu,
    shapes=_pack_shapes,
    loops="gpuzip.loops.bits:pack_bits",
    kernel="gpuzip.kernels.bits:pack_bits",
    samples=_pack_samples,
    agreement="exact",
)
_unpack = define_op(
    "unpack_bits(Tensor packed, int M, int nbits) -> Tensor",
    reference=_unpack_reference,
    cpu=_unpack_cpu,
    shapes=_unpack_shapes,
    loops="gpuzip.loops.bits:unpack_bits",
    kernel="gpuzip.kernels.bits:unpack_bits",
    samples=_unpack_samples,
    agreement="exact",
)


def pack_bits(values: Tensor, nbits: int) -> Tensor:
    """Pack codes below 2**nbits, least significant bit first, rows padded with zero bits to a byte.

    values (N, M) uint8 or int32 -> (N, ceil(M * nbits / 8)) uint8. Exact. With 8 bits the codes are returned
    as they are. Layout: FAISS PQEncoderGeneric.
    """
    if nbits == 8:
        return values.to(torch.uint8)
    packed: Tensor = _pack(values, nbits)
    return packed


def unpack_bits(packed: Tensor, M: int, nbits: int) -> Tensor:
    """Undo `pack_bits`: (N, B) uint8 -> (N, M), uint8 when nbits <= 8, else int32. Exact."""
    if nbits == 8:
        return packed
    values: Tensor = _unpack(packed, M, nbits)
    return values


def _bits_above_plain(x: Tensor, limits: Tensor, out: Tensor) -> float:
    thresholds = limits.numpy()

    def one_block(start: int, stop: int) -> float:
        rows = x[start:stop].float()
        out[start:stop] = torch.from_numpy(np.packbits(rows.numpy() > thresholds, axis=1))
        return float(torch.linalg.vector_norm(rows)) ** 2

    return sum(map_blocks(one_block, len(x), max(1, _TILE // x.shape[1]), lone_here=True))


_bits_above = loops_or(_bits_above_plain, "gpuzip.loops.bits:bits_above")


def bits_above(x: Tensor, limits: Tensor, out: Tensor) -> float:
    """Write numpy.packbits(x > limits, axis=1) on a CPU, and return the sum of all squares, in one pass.

    x (N, D) float32, float16 or bfloat16, compared as float32; limits (1,) or (D,) float32; out
    (N, ceil(D / 8)) uint8, contiguous: the first value in the highest bit. The sum is NaN or inf if a value
    is, else right to within 10 %.
    """
    squares: float = _bits_above(x, limits, out)
    return squares
