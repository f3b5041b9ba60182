"""Tables and centroids for whole bytes, so that codes of 1, 2 or 4 bits are read one byte at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def byte_tables(lut: Tensor, K: int = 256) -> Tensor:
    """(Q, M, k) -> one table per byte, if a byte holds whole codes: 4-bit codes need half the look-ups.

    K: 256, or 16 for one table per nibble, whose sums by byte are the entries for 256, bit for bit.

    Neighbouring codes are paired: entry (high, low) is the sum of both. Padding codes add 0. If k is 256, or
    codes cross byte boundaries, the tables are returned unchanged.
    """
    k = lut.shape[2]
    if k not in (2, 4, 16):
        return lut.contiguous()
    lut = torch.nn.functional.pad(lut, (0, 0, 0, -lut.shape[1] % (8 // (k.bit_length() - 1))))
    while k < K:
        pairs = lut.view(len(lut), -1, 2, k)
        lut = (pairs[:, :, 0, None, :] + pairs[:, :, 1, :, None]).reshape(len(lut), -1, k * k)
        k *= k
    return lut.contiguous()


def by_byte(centroids: Tensor, share: int, K: int = 256) -> tuple[Tensor, int]:
    """(C, k, S) and share -> the codebook that reads the same bytes as codes of up to K values; its share.

    Two codes in one byte become one code, whose centroid is the concatenation of both. Neighbours that share
    a codebook also share the codebook of pairs.
    """
    while (
        centroids.shape[1] in (2, 4, 16)
        and centroids.shape[1] < K
        and (share if share > 1 else len(centroids)) % 2 == 0
    ):
        k = centroids.shape[1]
        low, high = (centroids, centroids) if share > 1 else (centroids[0::2], centroids[1::2])
        pairs = low[:, None].expand(-1, k, -1, -1), high[:, :, None].expand(-1, -1, k, -1)
        centroids = torch.cat(pairs, -1).view(len(low), k * k, -1)
        share = max(1, share // 2)
    return centroids, share
