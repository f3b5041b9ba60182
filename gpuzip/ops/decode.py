"""Packed PQ codes back to vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gpuzip.ops._define import define_op
from gpuzip.ops._samples import anisotropic, random_codes
from gpuzip.ops.bits import pack_bits, unpack_bits
from gpuzip.parallel import map_blocks

_WIDE = {2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}


def _reference(packed: Tensor, centroids: Tensor) -> Tensor:
    M, K, _ = centroids.shape
    codes = unpack_bits(packed, M, K.bit_length() - 1).long()
    return torch.cat([centroids[m][codes[:, m]] for m in range(M)], 1)


def _cpu(packed: Tensor, centroids: Tensor) -> Tensor:
    M, K, S = centroids.shape
    out = torch.empty((len(packed), M * S), dtype=centroids.dtype)
    table, rows = _widen(centroids.reshape(M * K, S)), _widen(out.view(-1, S))
    first = torch.arange(M) * K

    def one_block(start: int, stop: int) -> None:
        index = unpack_bits(packed[start:stop], M, K.bit_length() - 1) + first  # [n, M] int64
        _gather(table, index.view(-1), rows[start * M : stop * M])

    map_blocks(one_block, len(packed), 2048)
    return out


def _widen(table: Tensor) -> Tensor:
    """See a row of 2 to 16 bytes as one scalar, which is gathered in one move."""
    dtype = _WIDE.get(table.shape[1] * table.element_size())
    aligned = dtype is not None and table.data_ptr() % dtype.itemsize == 0
    return table.view(dtype).view(-1) if dtype is not None and aligned else table


def _gather(table: Tensor, index: Tensor, out: Tensor) -> None:
    if table.ndim == 1:  # scalars: numpy's take is twice as fast as torch's index_select
        np.take(table.numpy(), index.numpy(), out=out.numpy(), mode="clip")
    else:
        torch.index_select(table, 0, index, out=out)


def _shapes(packed: Tensor, centroids: Tensor) -> Tensor:
    M, _, S = centroids.shape
    return centroids.new_empty((packed.shape[0], M * S))


def _samples(device: str) -> Iterator[tuple[Tensor, Tensor]]:
    sizes = [
        (0, 2, 2, 3),
        (1, 1, 4, 1),
        (37, 5, 3, 4),
        (131, 3, 4, 2),
        (67, 3, 8, 8),
        (9, 3, 9, 5),
        (5, 2, 16, 1),
    ]
    for N, M, nbits, S in sizes:
        packed = pack_bits(random_codes(N, M, 1 << nbits), nbits).to(device)
        centroids = anisotropic(1 << nbits, M * S).view(M, 1 << nbits, S).to(device)
        yield packed, centroids
        yield packed, centroids.half()


_op = define_op(
    "decode(Tensor packed, Tensor centroids) -> Tensor",
    reference=_reference,
    cpu=_cpu,
    shapes=_shapes,
    kernel="gpuzip.kernels.decode:decode",
    samples=_samples,
    agreement="exact",
)


def decode(packed: Tensor, centroids: Tensor) -> Tensor:
    """Look up every code's centroid and lay the sub-vectors side by side.

    (N, B) uint8 of packed codes, (M, K, S) with K = 2**nbits -> (N, M*S) in the centroids' dtype. Exact.
    """
    vectors: Tensor = _op(packed, centroids)
    return vectors
