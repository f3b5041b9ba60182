"""What the blocks of a lossless file share, and its bytes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from gpuzip.archive._fields import Field, read_fields
from gpuzip.archive._numbers import NUMBERS_BYTES, Numbers
from gpuzip.errors import FormatError

_VERSION = 1
_SIZE = struct.Struct("<I")
_MOST_BYTES = 1 << 40
_WIDEST = 16  # bits that are packed together


class Constant(NamedTuple):
    """Columns of a single number. here: (D,) bool. numbers: theirs, int64."""

    here: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, numbers: Tensor) -> Constant:
        here = (numbers == numbers[0]).all(0)
        return cls(here, numbers[0, here].long())

    def others(self, numbers: Tensor) -> Tensor:
        return numbers[:, ~self.here] if bool(self.here.any()) else numbers

    def packed(self) -> bytes:
        data = self.here.cpu().numpy().tobytes() + self.numbers.cpu().numpy().astype("<i8").tobytes()
        short = zlib.compress(data, 9)
        return _SIZE.pack(len(short)) + short

    @classmethod
    def unpacked(cls, data: bytes, columns: int, device: torch.device) -> Constant:
        raw = zlib.decompressobj().decompress(data, min(9 * columns, _MOST_BYTES) + 1)
        if len(raw) < max(1, columns):
            raise ValueError("another number of columns")
        here = torch.frombuffer(bytearray(raw[:columns]), dtype=torch.uint8).to(device).bool()
        if len(raw) != columns + 8 * int(here.sum()):
            raise ValueError("another number of columns")
        numbers = [number for (number,) in struct.iter_unpack("<q", raw[columns:])]
        return cls(here, torch.tensor(numbers, dtype=torch.int64, device=device))


class Model(NamedTuple):
    """repeats: whether blocks leave out rows that repeat an earlier one."""

    numbers: Numbers
    constant: Constant
    fields: list[Field]
    repeats: bool

    @property
    def coded(self) -> list[Field]:
        return [field for field in self.fields if len(field.coded)]

    def packed(self) -> Iterator[tuple[int, int, Tensor]]:
        """Yield low, width and columns of bits that are packed as they are."""
        low, width, columns = 0, 0, None
        for field in reversed(self.fields):
            raw = field.raw
            if columns is not None and width + field.width <= _WIDEST and torch.equal(raw, columns):
                width += field.width
                continue
            if columns is not None and len(columns):
                yield low, width, columns
            low, width, columns = field.low, field.width, raw
        if columns is not None and len(columns):
            yield low, width, columns


def model_bytes(model: Model, device: torch.device) -> Tensor:
    data = bytes([_VERSION, model.repeats]) + model.numbers.packed() + model.constant.packed()
    data += b"".join(field.data for field in model.fields)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)


def read_model(data: Tensor, columns: int) -> Model:
    """Read the model of a matrix of so many columns; a FormatError if the bytes are none."""
    raw = data.cpu().numpy().tobytes()
    try:
        if raw[0] != _VERSION:
            raise ValueError(f"version {raw[0]}")
        at = 2 + NUMBERS_BYTES
        numbers = Numbers.unpacked(raw[2:at])
        end = at + _SIZE.size + _SIZE.unpack_from(raw, at)[0]
        constant = Constant.unpacked(raw[at + _SIZE.size : end], columns, data.device)
        fields = list(read_fields(raw[end:], columns - len(constant.numbers), numbers.bits, data.device))
        low = fields[-1].low if fields else numbers.bits
        if low and len(constant.numbers) < columns:
            raise ValueError("bits that no field has")
        model = Model(numbers, constant, fields, bool(raw[1]))
    except (ValueError, IndexError, struct.error, zlib.error) as error:
        raise FormatError(
            f"decode_lossless: the model must be bytes of encode_lossless; got something else ({error}). "
            "Read the file again from where it came from."
        ) from error
    return model
