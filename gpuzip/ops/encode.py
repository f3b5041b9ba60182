"""Encodes rows to packed codes of product quantization in one pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gpuzip.errors import GpuzipError
from gpuzip.ops._define import define_op
from gpuzip.ops.assign import assign, assign_reference, half_inputs, inputs_of, tied_inputs
from gpuzip.ops.bits import code_bytes, pack_bits, pack_reference


def _nbits(centroids: Tensor) -> int:
    return centroids.shape[1].bit_length() - 1


def _reference(x: Tensor, centroids: Tensor, exact: bool) -> Tensor:
    return pack_reference(assign_reference(x, centroids), _nbits(centroids))


def _cpu(x: Tensor, centroids: Tensor, exact: bool) -> Tensor:
    return pack_bits(assign(x, centroids, exact), _nbits(centroids))


def _shapes(x: Tensor, centroids: Tensor, exact: bool) -> Tensor:
    bytes_a_row = code_bytes(centroids.shape[0], _nbits(centroids))
    return x.new_empty((x.shape[0], bytes_a_row), dtype=torch.uint8)


_SIZES = [(0, 3, 16, 4), (1, 1, 2, 1), (37, 3, 16, 4), (137, 19, 2, 2), (131, 9, 4, 3), (131, 17, 16, 3)]
_WIDE = [(131, 2, 256, 8), (29, 3, 32, 5), (19, 2, 512, 2), (5, 3, 4, 65)]


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor, bool]]:
    for size in _SIZES + _WIDE:
        yield *inputs_of(*size, device), False
    yield *inputs_of(67, 5, 16, 3, device), True
    yield *tied_inputs(device), False
    for dtype in (torch.float16, torch.bfloat16):
        yield *half_inputs(dtype, device), False


_op = define_op(
    "encode(Tensor x, Tensor centroids, bool exact) -> Tensor",
    reference=_reference,
    cpu=_cpu,
    loops="gpuzip.loops.encode:encode",
    shapes=_shapes,
    kernel="gpuzip.kernels.encode:encode",
    samples=_samples,
    agreement="nearest",
)


def encode(x: Tensor, centroids: Tensor, exact: bool = False) -> Tensor:
    """Compute `pack_bits(assign(x, centroids, exact), nbits)` in one pass.

    x (N, M*S) float32, float16 or bfloat16, centroids (M, 2**nbits, S) float32 ->
    (N, ceil(M * nbits / 8)) uint8, nbits from 1 to 16. A code may differ from the reference's as in `assign`.
    Raises GpuzipError unless the number of centroids is a power of two. Source: FAISS ProductQuantizer.
    """
    K = centroids.shape[1]
    if K < 2 or K & (K - 1) or K > 1 << 16:
        raise GpuzipError(
            f"encode: centroids per sub-space must be a power of two from 2 to 65,536; got {K}."
        )
    packed: Tensor = _op(x, centroids, exact)
    return packed
