"""Packed PQ codes back to vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip.ops._define import define_op
from gpuzip.ops._samples import anisotropic, random_codes
from gpuzip.ops.bits import pack_bits, unpack_bits
from gpuzip.parallel import map_blocks


def _reference(packed: Tensor, centroids: Tensor) -> Tensor:
    M, K, _ = centroids.shape
    codes = unpack_bits(packed, M, K.bit_length() - 1).long()
    return torch.cat([centroids[m][codes[:, m]] for m in range(M)], 1)


def _cpu(packed: Tensor, centroids: Tensor) -> Tensor:
    """numpy's take moves a row of bytes at a time; torch's index_select moves its elements one by one."""
    if len(packed) >= 256:
        centroids = _by_byte(centroids)
    M, K, S = centroids.shape
    out = torch.empty((len(packed), M * S), dtype=centroids.dtype)
    table, rows = _as_bytes(centroids.contiguous().view(M * K, S)), _as_bytes(out.view(-1, S))
    first = torch.arange(0, M * K, K)

    def one_block(start: int, stop: int) -> None:
        index = unpack_bits(packed[start:stop], M, K.bit_length() - 1) + first  # [n, M] int64
        np.take(table, index.view(-1).numpy(), axis=0, out=rows[start * M : stop * M], mode="clip")

    map_blocks(one_block, len(packed), 1024)
    return out


def _by_byte(centroids: Tensor) -> Tensor:
    """The codebook of wider codes that are the same bytes: where two codes share one, side by side."""
    M, K, _ = centroids.shape
    while K in (2, 4, 16) and M % 2 == 0:
        low, high = (
            centroids[0::2, None].expand(-1, K, -1, -1),
            centroids[1::2, :, None].expand(-1, -1, K, -1),
        )
        M, K = M // 2, K * K
        centroids = torch.cat([low, high], -1).view(M, K, -1)
    return centroids


def _as_bytes(rows: Tensor) -> np.ndarray[Any, Any]:
    return rows.view(torch.uint8).numpy()


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
        (301, 16, 1, 3),
        (299, 12, 2, 2),
        (1031, 6, 4, 3),
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
    loops="gpuzip.loops.decode:decode",
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
