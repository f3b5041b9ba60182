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
from gpuzip.archive._numbers import Numbers

_SYMBOLS = 255  # per table, beside the escape
_LOW = 7  # bits of a field below the highest, so that each of its values has a symbol
_MOST = 16  # bits of the highest field
_MOST_TABLES = 1 << 11
_ESCAPE_BITS = 44.0
_BLOCK_BITS = 8.0 * (4 + 4 + 4 * 32)  # of a coded field: its size and its states
_WORTH = 0.001  # of all bits: what coding a field below the highest has to save
_SAMPLE, _FEWEST = 1 << 19, 1024  # values that tables are counted over, and rows of them, at least
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
    """Split the bits of numbers (N, D), the highest field first; tables are counted over a sample of rows."""
    sample = numbers[:: -(-len(numbers) // max(_FEWEST, _SAMPLE // numbers.shape[1]))]
    scale = len(numbers) / len(sample)
    highest = (_highest(sample, kind.bits, width, scale) for width in _widths(kind))
    fields = [min(highest, key=lambda found: found.cost).written()]
    low = fields[0].low
    count = -(-low // _LOW)
    fixed = max(_BLOCK_BITS * blocks, _WORTH * kind.bits * numbers.numel())
    for i in range(count):
        below = low - low * (i + 1) // count
        fields.append(_lower(sample, below, low - low * i // count - below, scale, fixed).written())
    return fields


def _widths(numbers: Numbers) -> list[int]:
    """Return widths for the highest field: sign, exponent and a few bits, or those of small multiples."""
    first = 8 if numbers.decimals >= 0 else _SIGN_AND_EXPONENT.get(numbers.dtype, 9) + 1
    return sorted({min(width, numbers.bits, _MOST) for width in range(first, first + 4)})


class _Found(NamedTuple):
    """A field before it is written. counts: (D, 1 + K) of a sample. cost: bits of all numbers, about."""

    low: int
    width: int
    values: Tensor
    counts: Tensor
    classes: Classes
    cost: float

    def written(self) -> Field:
        """Return the field. Each table has an escape, for what the sample lacks."""
        coded = self.classes.of_column >= 0
        tables = self.counts.new_zeros((self.classes.tables, self.counts.shape[1]))
        tables.index_add_(0, self.classes.of_column[coded], self.counts[coded])
        tables[:, 0].clamp_(min=1)
        packed = (
            pack_tables(tables) if len(tables) else Packed(b"", tables.new_zeros((0, 256), dtype=torch.int32))
        )
        own = self.classes.of_column
        return _written(self.low, self.width, own, self.values, packed.freqs, packed.data)


def _highest(sample: Tensor, bits: int, width: int, scale: float) -> _Found:
    """The highest field of so many bits; what is left below it is taken to be random."""
    low = bits - width
    found = bits_of(sample, low, width)
    symbols, values = _symbols(torch.bincount(found.flatten(), minlength=1 << width))
    counts = _counts(symbols[found])[:, : 1 + len(values)]
    grouped = classes(counts, scale=scale)
    cost = grouped.bits + scale * (float(counts[:, 0].sum()) * _ESCAPE_BITS + sample.numel() * low)
    return _Found(low, width, values, counts, grouped, cost)


def _symbols(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the symbol of every value, 0 for those that are too rare, and the values of the symbols."""
    order = torch.argsort(counts, descending=True, stable=True)[:_SYMBOLS]
    values = order[counts[order] > 0].sort().values
    symbols = torch.zeros_like(counts)
    symbols[values] = torch.arange(1, 1 + len(values), device=counts.device)
    return symbols, values


def _lower(sample: Tensor, low: int, width: int, scale: float, fixed: float) -> _Found:
    """A field whose bits are left as they are in columns where they look random."""
    values = torch.arange(1 << width, device=sample.device)
    counts = _counts(bits_of(sample, low, width).long() + 1)[:, : 1 + len(values)]
    grouped = classes(counts, width, fixed, scale)
    return _Found(low, width, values, counts, grouped, grouped.bits)


def _counts(symbols: Tensor) -> Tensor:
    """Count the symbols (N, D) int64 of each column: (D, 256) int64."""
    D = symbols.shape[1]
    places = symbols + 256 * torch.arange(D, device=symbols.device)
    return torch.bincount(places.flatten(), minlength=256 * D).view(D, 256)


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
