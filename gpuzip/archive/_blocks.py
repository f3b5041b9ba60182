"""Parts of the blocks of a lossless file, and their numbers."""

from __future__ import annotations

import struct
from typing import NamedTuple

import torch
from torch import Tensor

from gpuzip.archive._model import Model
from gpuzip.errors import FormatError
from gpuzip.ops import rans_decode, unpack_bits

_SIZE = struct.Struct("<I")


class Place(NamedTuple):
    block: int
    first: int
    last: int


def wrong(block: int) -> FormatError:
    return FormatError(
        f"decode_lossless: block {block} must be bytes of encode_lossless; it is damaged. Read the file "
        "again from where it came from."
    )


def kept_rows(stream: Tensor, place: Place, rows: int) -> int:
    """Return how many rows of a block are stored."""
    if place.last - place.first < 2:
        raise wrong(place.block)
    low, high = stream[place.first : place.first + 2].tolist()
    count: int = 1 + low + 256 * high
    if count > rows:
        raise wrong(place.block)
    return count


def body_of(place: Place, kept: int, rows: int, repeats: bool) -> Place:
    """Return where the parts of a block are, after its references."""
    return place._replace(first=place.first + (2 + 2 * rows * (kept < rows)) * repeats)


def unfolded(kept: Tensor, stream: Tensor, place: Place, rows: int) -> Tensor:
    """Return the rows of a block, those that repeat others, too."""
    if len(kept) == rows:
        return kept
    pairs = stream[place.first + 2 : place.first + 2 + 2 * rows].long().view(rows, 2)
    ids = pairs[:, 0] + 256 * pairs[:, 1]
    if int(ids.max()) >= len(kept):
        raise wrong(place.block)
    return kept[ids]


def numbers_of_blocks(stream: Tensor, bodies: list[Place], rows: int, d: int, model: Model) -> Tensor:
    """Return the numbers of blocks of `rows` rows: (len(bodies) * rows, d)."""
    shape, kind = (len(bodies) * rows, d - len(model.constant.numbers)), model.numbers.kind
    numbers = torch.zeros(shape, dtype=kind, device=stream.device)
    packed = list(model.packed())
    raw_bytes = [-(-rows * len(columns) * width // 8) for _, width, columns in packed]
    parts = [_coded_parts(stream, body, len(model.coded), sum(raw_bytes)) for body in bodies]
    for i, field in enumerate(model.coded):
        starts = torch.tensor([part[i : i + 2] for part in parts], dtype=torch.int64, device=stream.device)
        levels, ok = rans_decode(stream, starts, len(numbers), rows, *field.model())
        if not bool(ok.all()):
            raise wrong(bodies[ok.tolist().index(False)].block)
        _join(numbers, levels & ((1 << field.width) - 1), field.low, field.coded)
    first = torch.tensor([part[-1] for part in parts], dtype=torch.int64, device=stream.device)
    for (low, width, columns), size in zip(packed, raw_bytes, strict=True):
        bits = stream[first[:, None] + torch.arange(size, device=stream.device)]
        values = unpack_bits(bits, rows * len(columns), width)
        _join(numbers, values.view(-1, len(columns)), low, columns)
        first = first + size
    if not len(model.constant.numbers):
        return numbers
    every = numbers.new_empty((len(numbers), d))
    every[:, model.constant.here] = model.constant.numbers.to(kind)
    every[:, ~model.constant.here] = numbers
    return every


def _join(numbers: Tensor, values: Tensor, low: int, columns: Tensor) -> None:
    """Set the bits from `low` on in these columns, which are 0, to values."""
    shifted = values.to(numbers.dtype) << low
    if len(columns) == numbers.shape[1]:
        numbers |= shifted
    else:
        numbers.index_add_(1, columns, shifted)  # several times as fast as indexing


def _coded_parts(stream: Tensor, body: Place, count: int, raw_bytes: int) -> list[int]:
    """Return where the coded parts of a block begin, and where the last one ends."""
    at = body.first + _SIZE.size * max(0, count - 1)
    end = body.last - raw_bytes
    if at > end:
        raise wrong(body.block)
    sizes = stream[body.first : at].cpu().numpy().view("<u4").tolist()
    parts = [at]
    for size in sizes:
        parts.append(parts[-1] + size)
    if parts[-1] > end or (count == 0 and at < end):
        raise wrong(body.block)
    return [*parts, end] if count else parts
