"""Whole numbers as few bytes: variable length, deflated."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from gpuzip.errors import FormatError

_RAW = -15  # deflate without a header of zlib's


def packed(numbers: Iterable[int]) -> bytes:
    """Return whole numbers as bytes: signs in the lowest bit, 7 bits per byte, then deflate."""
    out = bytearray()
    for number in numbers:
        left = number * 2 if number >= 0 else -number * 2 - 1
        while left > 127:
            out.append(left & 127 | 128)
            left >>= 7
        out.append(left)
    deflate = zlib.compressobj(9, zlib.DEFLATED, _RAW)
    return deflate.compress(bytes(out)) + deflate.flush()


def unpacked(data: bytes, most: int) -> Iterator[int]:
    """Return the numbers in such bytes, at most `most` of them. Raises FormatError for other bytes."""
    inflate = zlib.decompressobj(_RAW)
    try:
        text = inflate.decompress(data, 5 * most)
    except zlib.error as error:
        raise FormatError(f"numbers must be deflated; {error}.") from error
    if not inflate.eof or inflate.unconsumed_tail or inflate.unused_data:
        raise FormatError(f"numbers must be at most {most}, and nothing after them.")
    return _read(text)


def _read(text: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in text:
        number |= (byte & 127) << shift
        shift += 7
        if shift > 35:
            raise FormatError("numbers must have at most 32 bits.")
        if byte < 128:
            yield number >> 1 if number % 2 == 0 else -(number + 1 >> 1)
            number = shift = 0
    if shift:
        raise FormatError("numbers must be whole; the last one is cut off.")


def first(numbers: Iterator[int], count: int, least: int, most: int) -> list[int]:
    """Return the next `count` numbers. Raises FormatError if there are fewer or one is out of range."""
    found = []
    for _ in range(count):
        number = next(numbers, None)
        if number is None or not least <= number <= most:
            raise FormatError(f"a number must be within [{least}, {most}]; got {number}.")
        found.append(number)
    return found
