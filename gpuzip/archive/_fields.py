"""The bits of whole numbers in fields: those that are not random are coded, the rest is packed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gpuzip.archive._classes import Classes, classes
from gpuzip.archive._frequencies import Packed, pack_tables, unpack_tables
from gpuzip.archive._numbers import Numbers, chunks

_SYMBOLS = 255  # per table, beside the escape
_LOW = 7  # bits of a field below the highest, so that each of its values has a symbol
_MOST = 16  # bits of the highest field
_MOST_TABLES = 1 << 11
_ESCAPE_BITS = 44.0
_BLOCK_BITS = 8.0 * (4 + 4 + 4 * 32)  # of a coded field: its size and its states
_WORTH = 0.001  # of all bits: what coding a field below the highest has to save
_SAMPLE = 4096  # rows by which the width of the highest field is chosen
_SIGN_AND_EXPONENT = {torch.float16: 6, torch.float64: 12}
_HEAD = struct.Struct("<BBHHIII")


class Field(NamedTuple):
    """Bits low .. low + width of every number.

    of_column: (D,) int64, each column's table, or -1 where the bits are packed as they are. values: (K,)
    int64, what the symbols from 1 on stand for. freqs: (T, 256) int32. data: the field as bytes.
    """

    low: int
    width: int
    of_column: Tensor
    values: Tensor
    freqs: Tensor
    data: bytes

    def of(self, numbers: Tensor) -> Tensor:
        return bits_of(numbers, self.low, self.width)

    @property
    def coded(self) -> Tensor:
        return (self.of_column >= 0).nonzero()[:, 0]

    @property
    def raw(self) -> Tensor:
        return (self.of_column < 0).nonzero()[:, 0]

    def model(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what the entropy coder is told of the columns that are coded."""
        levels = torch.zeros(256, dtype=torch.int32, device=self.freqs.device)
        levels[1 : 1 + len(self.values)] = self.values.int()
        one_state = torch.zeros((1, 2), dtype=torch.uint8, device=levels.device)
        return (
            self.of_column[self.coded].int(),
            self.freqs,
            levels.expand(len(self.freqs), 256).contiguous(),
            one_state,
        )


def bits_of(numbers: Tensor, low: int, width: int) -> Tensor:
    return numbers >> low & ((1 << width) - 1)


def fields_of(numbers: Tensor, kind: Numbers, blocks: int) -> list[Field]:
    """Split the bits of numbers (N, D), the highest field first; tables are counted over all rows."""
    sample = numbers[:: -(-len(numbers) // _SAMPLE)]
    width = min(_widths(kind), key=lambda width: _estimate(sample, kind.bits, width))
    low = kind.bits - width
    fields = [_highest(numbers, low, width)]
    count = -(-low // _LOW)
    fixed = max(_BLOCK_BITS * blocks, _WORTH * kind.bits * numbers.numel())
    for i in range(count):
        below = low - low * (i + 1) // count
        fields.append(_lower(numbers, sample, below, low - low * i // count - below, fixed))
    return fields


def _widths(numbers: Numbers) -> list[int]:
    """Return widths for the highest field: sign, exponent and a few bits, or those of small multiples."""
    first = 8 if numbers.decimals >= 0 else _SIGN_AND_EXPONENT.get(numbers.dtype, 9) + 1
    return sorted({min(width, numbers.bits, _MOST) for width in range(first, first + 4)})


def _estimate(numbers: Tensor, bits: int, width: int) -> float:
    """Return about how many bits these numbers take with a highest field of this width."""
    symbols, _ = _symbols(
        torch.bincount(bits_of(numbers, bits - width, width).flatten(), minlength=1 << width)
    )
    counts = _counts(numbers, bits - width, width, symbols)
    escapes = float(counts[:, 0].sum())
    return classes(counts).bits + escapes * _ESCAPE_BITS + numbers.numel() * (bits - width)


def _symbols(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symbol of every value, 0 for those that are too rare, and the values of the symbols."""
    order = torch.argsort(counts, descending=True, stable=True)[:_SYMBOLS]
    values = order[counts[order] > 0].sort().values
    symbols = torch.zeros_like(counts)
    symbols[values] = torch.arange(1, 1 + len(values), device=counts.device)
    return symbols, values


def _counts(numbers: Tensor, low: int, width: int, symbols: Tensor) -> Tensor:
    """Count the symbols of each column: (D, 256) int64."""
    D = numbers.shape[1]
    found = symbols[bits_of(numbers, low, width)] + 256 * torch.arange(D, device=numbers.device)
    return torch.bincount(found.flatten(), minlength=256 * D).view(D, 256)


def _highest(numbers: Tensor, low: int, width: int) -> Field:
    seen = torch.zeros(1 << width, dtype=torch.int64, device=numbers.device)
    for part in chunks(numbers):
        seen += torch.bincount(bits_of(part, low, width).flatten(), minlength=1 << width)
    symbols, values = _symbols(seen)
    counts = _all_counts(numbers, low, width, symbols)[:, : 1 + len(values)]
    return _field(low, width, values, counts, classes(counts))


def _lower(numbers: Tensor, sample: Tensor, low: int, width: int, fixed: float) -> Field:
    """A field whose bits are left as they are in columns where a sample looks random."""
    values = torch.arange(1 << width, device=numbers.device)
    scale = len(numbers) / len(sample)

    def grouped(counts: Tensor) -> Classes:
        return classes(counts[:, : 1 + len(values)], width, fixed)

    found = grouped(scale * _counts(sample, low, width, values + 1))
    if found.tables == 0:
        none = torch.zeros((0, 256), dtype=torch.int32, device=numbers.device)
        return _written(low, width, found.of_column, values, none, b"")
    counts = _all_counts(numbers, low, width, values + 1)
    return _field(low, width, values, counts, grouped(counts))


def _all_counts(numbers: Tensor, low: int, width: int, symbols: Tensor) -> Tensor:
    counts = torch.zeros((numbers.shape[1], 256), dtype=torch.int64, device=numbers.device)
    for part in chunks(numbers):
        counts += _counts(part, low, width, symbols)
    return counts


def _field(low: int, width: int, values: Tensor, counts: Tensor, found: Classes) -> Field:
    coded = found.of_column >= 0
    tables = torch.zeros((found.tables, 1 + len(values)), dtype=torch.int64, device=counts.device)
    tables.index_add_(0, found.of_column[coded], counts[coded, : 1 + len(values)])
    packed = (
        pack_tables(tables) if found.tables else Packed(b"", tables.new_zeros((0, 256), dtype=torch.int32))
    )
    return _written(low, width, found.of_column, values, packed.freqs, packed.data)


def _written(low: int, width: int, of_column: Tensor, values: Tensor, freqs: Tensor, tables: bytes) -> Field:
    own = zlib.compress((of_column + 1).short().cpu().numpy().astype("<u2").tobytes(), 9)
    of_values = zlib.compress(
        values.diff(prepend=values.new_zeros(1)).cpu().numpy().astype("<u2").tobytes(), 9
    )
    head = _HEAD.pack(low, width, len(freqs), len(values), len(own), len(of_values), len(tables))
    return Field(low, width, of_column, values, freqs, head + own + of_values + tables)


def read_fields(data: bytes, columns: int, top: int, device: torch.device) -> Iterator[Field]:
    """Undo the bytes of fields one after the other; a ValueError where they are none.

    top: bits of a number, which fields share without gaps, the highest first.
    """
    while data:
        low, width, tables, symbols, *sizes = _HEAD.unpack_from(data)
        size = _HEAD.size + sum(sizes)
        if size > len(data) or symbols > _SYMBOLS or tables > min(columns, _MOST_TABLES) or not columns:
            raise ValueError("a field that does not fit")
        if not 1 <= width <= _MOST or low + width != top:
            raise ValueError("fields with gaps")
        top = low
        parts, at = [], _HEAD.size
        for part in sizes:
            parts.append(data[at : at + part])
            at += part
        of_column = _numbers(parts[0], columns, device) - 1
        values = _numbers(parts[1], symbols, device).cumsum(0)
        freqs = torch.zeros((0, 256), dtype=torch.int32, device=device)
        if tables:
            freqs = unpack_tables(parts[2], tables, 1 + symbols, device)
        if int(of_column.max()) >= tables:
            raise ValueError("a column without a table")
        yield Field(low, width, of_column, values, freqs, data[:size])
        data = data[size:]


def _numbers(data: bytes, count: int, device: torch.device) -> Tensor:
    raw = zlib.decompressobj().decompress(data, 2 * count + 1)
    if len(raw) != 2 * count:
        raise ValueError("another number of entries")
    return torch.frombuffer(bytearray(raw), dtype=torch.uint16).long().to(device) if count else _none(device)


def _none(device: torch.device) -> Tensor:
    return torch.zeros(0, dtype=torch.int64, device=device)
