"""Floats as whole numbers of as few bits as tell them all, and back, bit for bit.

Floats that came from a smaller dtype are stored in it. Those that were written with a few decimals, or are
whole, are stored as multiples of a power of ten. Low bits that are 0 everywhere are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 1 << 22  # values at a time
_DECIMALS = 7
_BEFORE_DECIMALS = 3  # bits that decimals have to save
_HEAD = struct.Struct("<BbBBq")


class Numbers(NamedTuple):
    """How floats become whole numbers of `bits` bits, 0 or more.

    dtype: what they are stored in. decimals: of multiples of 10**-decimals, or -1 for the bits of the dtype.
    shift: low bits that are left out. offset: the least multiple.
    """

    dtype: torch.dtype
    decimals: int
    shift: int
    bits: int
    offset: int

    def packed(self) -> bytes:
        return _HEAD.pack(DTYPES.index(self.dtype), self.decimals, self.shift, self.bits, self.offset)

    @classmethod
    def unpacked(cls, data: bytes) -> Numbers:
        dtype, decimals, shift, bits, offset = _HEAD.unpack(data)
        if dtype >= len(DTYPES) or not (-1 <= decimals < _DECIMALS and shift + bits <= 64):
            raise ValueError("numbers of an unknown kind")
        return cls(DTYPES[dtype], decimals, shift, bits, offset)

    def of(self, x: Tensor) -> Tensor:
        """Return the whole numbers of floats: int64, or the low 64 bits of them."""
        if self.decimals >= 0:
            return _multiples(x, self.decimals) - self.offset
        return _as_bits(x.to(self.dtype)) >> self.shift & _mask(self.bits)

    def back(self, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        """Undo `of`."""
        if self.decimals >= 0:
            return _of_multiples(numbers + self.offset, self.decimals, dtype)
        size = self.dtype.itemsize
        return (numbers << self.shift).to(_INTS[size]).view(self.dtype).to(dtype)


NUMBERS_BYTES = _HEAD.size


def numbers_of(x: Tensor) -> Numbers:
    """Find the whole numbers of the fewest bits for floats (N, D)."""
    bits = _bits_of(x, _smallest(x))
    multiples = _decimals_of(x)
    if multiples is not None and multiples.bits + _BEFORE_DECIMALS <= bits.bits:
        return multiples
    return bits


def chunks(x: Tensor) -> Iterator[Tensor]:
    yield from x.split(max(1, _CHUNK // max(1, x.shape[1])))


def _smallest(x: Tensor) -> torch.dtype:
    """Return the smallest dtype that holds every value; with a NaN its own, as casts may change payloads."""
    if any(bool(part.isnan().any()) for part in chunks(x)):
        return x.dtype
    for dtype in DTYPES:
        if dtype.itemsize < x.dtype.itemsize and all(
            torch.equal(_as_bits(part.to(dtype).to(x.dtype)), _as_bits(part)) for part in chunks(x)
        ):
            return dtype
    return x.dtype


def _bits_of(x: Tensor, dtype: torch.dtype) -> Numbers:
    seen = 0
    for part in chunks(x):
        seen |= _any_of(_as_bits(part.to(dtype)))
    width = 8 * dtype.itemsize
    shift = min((seen & -seen).bit_length() - 1, width - 1) if seen else width - 1
    return Numbers(dtype, -1, shift, width - shift, 0)


def _any_of(bits: Tensor) -> int:
    """Return the union of the bits of all numbers, as 64 unsigned ones."""
    bits = bits.flatten()
    while len(bits) > 1:
        half = len(bits) // 2
        bits = torch.cat([bits[:half] | bits[half : 2 * half], bits[2 * half :]])
    return int(bits[0]) & _mask_of(64) if len(bits) else 0


def _decimals_of(x: Tensor) -> Numbers | None:
    """Return the fewest decimals that tell every value, if any do."""
    first = x[:: max(1, len(x) // 256)]
    for decimals in range(_DECIMALS):
        if not _are_multiples(first, decimals):
            continue
        if not all(_are_multiples(part, decimals) for part in chunks(x)):
            continue
        found = [_multiples(part, decimals) for part in chunks(x) if part.numel()]
        least = min((int(part.min()) for part in found), default=0)
        most = max((int(part.max()) for part in found), default=0)
        return Numbers(x.dtype, decimals, 0, max(1, (most - least).bit_length()), least)
    return None


def _are_multiples(x: Tensor, decimals: int) -> bool:
    if not bool((x.abs() < 2**30).all()):
        return False
    return torch.equal(_as_bits(_of_multiples(_multiples(x, decimals), decimals, x.dtype)), _as_bits(x))


def _multiples(x: Tensor, decimals: int) -> Tensor:
    return torch.round(x.double() * 10.0**decimals).long()


def _of_multiples(multiples: Tensor, decimals: int, dtype: torch.dtype) -> Tensor:
    return (multiples.double() / 10.0**decimals).to(dtype)


def _as_bits(x: Tensor) -> Tensor:
    """Return the bits of floats as int64, 0 or more where the dtype has fewer bits than that."""
    bits = x.contiguous().view(_INTS[x.dtype.itemsize]).long()
    return bits & _mask(8 * x.dtype.itemsize)


def _mask(bits: int) -> int:
    """Return a mask of the low bits that int64 can be masked with."""
    return -1 if bits >= 64 else _mask_of(bits)


def _mask_of(bits: int) -> int:
    return (1 << bits) - 1
