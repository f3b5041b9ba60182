"""FAISS's bytes of an IndexIDMap2 over an IndexPQ, which is all that embzip writes.

FAISS's own reader makes room for as many values as the bytes say before it looks whether they are there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_HEADER = "<iqqq?i"  # d, rows, two fillers, whether it is trained, metric
_METRICS = (0, 1)  # inner product and l2, which have no argument


class ProductIndex(NamedTuple):
    """What an index of product codes holds: (M, K, S) float32 centroids, and its codes."""

    d: int
    n: int
    centroids: np.ndarray[tuple[int, int, int], np.dtype[np.float32]]
    nbits: int
    codes: bytes


def product_index(data: bytes) -> ProductIndex:
    """Read `faiss.serialize_index` of such an index. Raises ValueError for another, and for a lie."""
    bytes_ = _Bytes(data)
    outer = _header(bytes_, b"IxM2")
    d, n = _header(bytes_, b"IxPq")
    if outer != (d, n):
        raise ValueError("the index and the one inside it must be of the same rows")
    width, m, nbits = bytes_.unpack("<QQQ")
    if width != d or not 1 <= nbits <= 16 or not 1 <= m <= d or d % m:
        raise ValueError(f"its product quantizer must fit {d} columns; got m={m}, nbits={nbits}")
    centroids = np.frombuffer(bytes_.vector(4), "<f4")
    if len(centroids) != (1 << nbits) * d:
        raise ValueError(f"it must have {1 << nbits} centroids of {d} values; it has {len(centroids)} values")
    codes = bytes_.vector(1)
    if len(codes) != n * (-(-m * nbits // 8)):
        raise ValueError(f"it must have codes of {n} rows; it has {len(codes)} bytes")
    bytes_.unpack("<i?i")  # how FAISS searches
    if len(bytes_.vector(8)) != 8 * n:
        raise ValueError("it must have an id per row")
    return ProductIndex(d, n, centroids.astype(np.float32).reshape(m, 1 << nbits, d // m), nbits, codes)


def _header(bytes_: _Bytes, fourcc: bytes) -> tuple[int, int]:
    if bytes_.take(4) != fourcc:
        raise ValueError("it must be a FAISS index (IDMap2) of product codes")
    d, n, _, _, _, metric = bytes_.unpack(_HEADER)
    if d < 1 or n < 0 or metric not in _METRICS:
        raise ValueError("the header of its index is damaged")
    return d, n


@dataclass
class _Bytes:
    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise ValueError("its index has fewer bytes than it says")
        self.at += count
        return part

    def unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def vector(self, itemsize: int) -> bytes:
        """The bytes of a vector, whose first 8 are the number of values."""
        (count,) = self.unpack("<Q")
        return self.take(count * itemsize)
