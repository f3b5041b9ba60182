"""Floats as whole numbers of as few bits as tell them all, and back, bit for bit.

Floats that came from a smaller dtype are stored in it. Those that were written with a few decimals, or are
whole, are stored as multiples of a power of ten. Low bits that are 0 everywhere are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 1 << 17  # values at a time
_DECIMALS = 7
_BEFORE_DECIMALS = 3  # bits that decimals have to save
_HEAD = struct.Struct("<BbBBq?")


class Numbers(NamedTuple):
    """How floats become whole numbers of `bits` bits, 0 or more, or the same bits as int32 or int64.

    dtype: what they are stored in. decimals: of multiples of 10**-decimals, or -1 for the bits of the dtype.
    shift: low bits that are left out. offset: the multiple of number 0. signed_zero: number 0 is -0 instead.
    """

    dtype: torch.dtype
    decimals: int
    shift: int
    bits: int
    offset: int
    signed_zero: bool = False

    @property
    def kind(self) -> torch.dtype:
        return torch.int32 if self.bits <= 32 else torch.int64

    def packed(self) -> bytes:
        dtype = DTYPES.index(self.dtype)
        return _HEAD.pack(dtype, self.decimals, self.shift, self.bits, self.offset, self.signed_zero)

    @classmethod
    def unpacked(cls, data: bytes) -> Numbers:
        dtype, decimals, shift, bits, offset, signed_zero = _HEAD.unpack(data)
        if dtype >= len(DTYPES) or not -1 <= decimals < _DECIMALS:
            raise ValueError("numbers of an unknown kind")
        if shift + bits > (64 if decimals >= 0 else 8 * DTYPES[dtype].itemsize):
            raise ValueError("numbers of too many bits")
        return cls(DTYPES[dtype], decimals, shift, bits, offset, bool(signed_zero))

    def of(self, x: Tensor) -> Tensor:
        """Return the whole numbers of floats."""
        return torch.cat(each_chunk(self._of, x))

    def _of(self, x: Tensor) -> Tensor:
        if self.decimals >= 0:
            numbers = (_multiples(x, self.decimals) - self.offset).to(self.kind)
            return numbers.masked_fill_(_is_signed_zero(x), 0) if self.signed_zero else numbers
        bits = _as_ints(x.to(self.dtype))
        if self.shift == 0 and bits.dtype == self.kind:
            return bits
        return (bits.long() >> self.shift & ((1 << self.bits) - 1)).to(self.kind)

    def back(self, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        """Undo `of`."""
        return torch.cat(each_chunk(lambda part: self._back(part, dtype), numbers))

    def _back(self, numbers: Tensor, dtype: torch.dtype) -> Tensor:
        if self.decimals >= 0:
            x = _of_multiples(numbers.long() + self.offset, self.decimals, dtype)
            return x.masked_fill_(numbers == 0, -0.0) if self.signed_zero else x
        shifted = numbers << self.shift if self.shift else numbers
        return shifted.to(INTS[self.dtype.itemsize]).view(self.dtype).to(dtype)


NUMBERS_BYTES = _HEAD.size


def numbers_of(x: Tensor) -> Numbers:
    """Find the whole numbers of the fewest bits for floats (N, D)."""
    bits = min((_bits_of(x, dtype) for dtype in _holding(x)), key=lambda numbers: numbers.bits)
    multiples = _decimals_of(x)
    if multiples is not None and multiples.bits + _BEFORE_DECIMALS <= bits.bits:
        return multiples
    return bits


def whole_numbers_of(x: Tensor) -> Numbers:
    """The whole numbers of floats (N, D) that are whole."""
    least, most = int(x.min()), int(x.max())
    return Numbers(x.dtype, 0, 0, max(1, (most - least).bit_length()), least)


def chunks(x: Tensor) -> Iterator[Tensor]:
    yield from x.split(_rows(x))


def each_chunk(fn: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """Return what fn makes of some rows of x at a time, on all threads."""
    if not len(x):
        return [fn(x)]
    return map_blocks(lambda start, stop: fn(x[start:stop]), len(x), _rows(x))


def _rows(x: Tensor) -> int:
    return max(1, _CHUNK // max(1, x.shape[1]))


def _holding(x: Tensor) -> Iterator[torch.dtype]:
    """Yield the dtypes that hold every value; with a NaN its own alone, as casts may change payloads."""
    yield x.dtype
    if any(bool(part.isnan().any()) for part in chunks(x)):
        return
    for dtype in DTYPES:
        if dtype.itemsize < x.dtype.itemsize and all(_holds(dtype, part) for part in chunks(x)):
            yield dtype


def _holds(dtype: torch.dtype, x: Tensor) -> bool:
    return torch.equal(_as_ints(x.to(dtype).to(x.dtype)), _as_ints(x))


def _bits_of(x: Tensor, dtype: torch.dtype) -> Numbers:
    seen, width = 0, 8 * dtype.itemsize
    for part in chunks(x):
        seen |= _any_of(_as_ints(part.to(dtype)))
        if seen & 1:
            return Numbers(dtype, -1, 0, width, 0)
    shift = (seen & -seen).bit_length() - 1 if seen else width - 1
    return Numbers(dtype, -1, shift, width - shift, 0)


def _any_of(bits: Tensor) -> int:
    """Return the union of the bits of all numbers, as 64 unsigned ones."""
    bits = bits.flatten()
    while len(bits) > 1:
        half = len(bits) // 2
        bits = torch.cat([bits[:half] | bits[half : 2 * half], bits[2 * half :]])
    return int(bits[0]) & ((1 << 64) - 1) if len(bits) else 0


def _decimals_of(x: Tensor) -> Numbers | None:
    """Return the fewest decimals that tell every value, if any do."""
    first = x[:: max(1, len(x) // 256)]
    for decimals in range(_DECIMALS):
        if not _are_multiples(first, decimals):
            continue
        if not all(_are_multiples(part, decimals) for part in chunks(x)):
            continue
        ends = [_multiples(part, decimals).aminmax() for part in chunks(x)]
        least, most = min(int(low) for low, _ in ends), max(int(high) for _, high in ends)
        signed_zero = any(bool(_is_signed_zero(part).any()) for part in chunks(x))
        least -= signed_zero
        return Numbers(x.dtype, decimals, 0, max(1, (most - least).bit_length()), least, signed_zero)
    return None


def _are_multiples(x: Tensor, decimals: int) -> bool:
    if not bool((x.abs() < 2**30).all()):
        return False
    return torch.equal(_of_multiples(_multiples(x, decimals), decimals, x.dtype), x)  # 0 is -0


def _is_signed_zero(x: Tensor) -> Tensor:
    return (x == 0) & torch.signbit(x)


def _multiples(x: Tensor, decimals: int) -> Tensor:
    return torch.round(x.double() * 10.0**decimals).long()


def _of_multiples(multiples: Tensor, decimals: int, dtype: torch.dtype) -> Tensor:
    return (multiples.double() / 10.0**decimals).to(dtype)


def _as_ints(x: Tensor) -> Tensor:
    return x.contiguous().view(INTS[x.dtype.itemsize])
