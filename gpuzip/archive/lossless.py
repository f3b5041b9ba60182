"""Floats in few bytes, bit for bit: what their high bits tell is entropy-coded, random bits are packed.

Block, little-endian: where the model says that rows repeat, u16 rows that are stored - 1, and if those are
fewer than the block has, for each row the u16 number of its stored row; a u32 size of each coded field but
the last; the coded fields, highest first, as `rans_encode` writes the columns that have tables; the packed
bits, lowest first, of the columns without tables: a string of all values by rows, padded to a byte.
Model: u8 version, u8 whether rows repeat, what floats are as whole numbers, the constant columns, the fields.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gpuzip.archive._blocks import Place, body_of, kept_rows, numbers_of_blocks, unfolded, wrong
from gpuzip.archive._fields import bits_of, fields_of
from gpuzip.archive._model import Constant, Model, model_bytes, read_model
from gpuzip.archive._numbers import numbers_of, whole_numbers_of
from gpuzip.archive._repeats import first_equal
from gpuzip.errors import GpuzipError
from gpuzip.ops import pack_bits, rans_encode

_SIZE = struct.Struct("<I")
_MOST_ROWS = 1 << 16  # of a block
_TASK = 1 << 22  # values that are coded at a time


class Lossless(NamedTuple):
    """model (bytes,) uint8: what all blocks share. stream (bytes,) uint8, lengths (blocks,) int64."""

    model: Tensor
    stream: Tensor
    lengths: Tensor


def encode_lossless(x: Tensor, block_rows: int, *, whole: bool = False) -> Lossless:
    """Code floats so that every bit comes back: NaN payloads, infinities, denormals and -0, too.

    Parameters
    ----------
    x : Tensor
        (N, D) float32, float16, bfloat16 or float64, D 1 or more.
    block_rows : int
        Rows per block, up to 65,536; the last block may have fewer. A block is decoded alone.
    whole : bool, default False
        The floats are whole numbers, and are coded as such.

    Returns
    -------
    Lossless
        The model, which decoding needs, the blocks one after the other, and the bytes of each.

    Examples
    --------
    >>> import torch
    >>> from gpuzip.archive.lossless import decode_lossless, encode_lossless
    >>> x = torch.arange(4096.0).view(64, 64) % 17
    >>> coded = encode_lossless(x, 32)
    >>> ends = coded.lengths.cumsum(0)
    >>> starts = torch.stack([ends - coded.lengths, ends], 1)
    >>> second = decode_lossless(coded.model, coded.stream, starts[1:], 64, 64, x.dtype, 32, [1])
    >>> bool((second == x[32:]).all())
    True
    """
    if not 1 <= block_rows <= _MOST_ROWS:
        raise GpuzipError(
            f"encode_lossless: block_rows must be in 1 .. {_MOST_ROWS}; got {block_rows}. 64 to 1024 suit."
        )
    if len(x) == 0:
        shared = encode_lossless(x.new_zeros((1, x.shape[1])), block_rows).model
        return Lossless(shared, shared[:0], torch.zeros(0, dtype=torch.int64, device=x.device))
    kind = whole_numbers_of(x) if whole else numbers_of(x)
    numbers = kind.of(x)
    constant = Constant.of(numbers)
    numbers = constant.others(numbers)
    repeated = sum(_repeated(part, block_rows) for part in numbers.split(_task(x, block_rows)))
    repeats = repeated * numbers.shape[1] * kind.bits > 4 * 16 * len(x)
    fields = fields_of(numbers, kind, -(-len(x) // block_rows)) if numbers.shape[1] else []
    model = Model(kind, constant, fields, repeats)
    return Lossless(model_bytes(model, x.device), *_packed(numbers, block_rows, model, x))


def pack_lossless(x: Tensor, block_rows: int, model: Tensor) -> tuple[Tensor, Tensor]:
    """Code rows (N, D) that a model was learned from: their stream and the bytes of each block."""
    known = read_model(model, x.shape[1])
    return _packed(known.constant.others(known.numbers.of(x)), block_rows, known, x)


def _packed(numbers: Tensor, block_rows: int, model: Model, x: Tensor) -> tuple[Tensor, Tensor]:
    parts = numbers.split(_task(x, block_rows))
    blocks = [block for part in parts for block in _blocks(part, block_rows, model)]
    lengths = torch.tensor([len(block) for block in blocks], dtype=torch.int64, device=x.device)
    return torch.cat(blocks) if blocks else x.new_zeros(0, dtype=torch.uint8), lengths


def _task(x: Tensor, block_rows: int) -> int:
    """Rows that are coded at a time."""
    return max(1, _TASK // (block_rows * x.shape[1])) * block_rows


def _repeated(numbers: Tensor, block_rows: int) -> int:
    own = torch.arange(len(numbers), device=numbers.device) % block_rows
    return int((first_equal(numbers, block_rows) != own).sum())


def _blocks(numbers: Tensor, block_rows: int, model: Model) -> list[Tensor]:
    """Return the bytes of some blocks, the last of which may have fewer rows."""
    N = len(numbers)
    rows = torch.arange(N, device=numbers.device)
    first = first_equal(numbers, block_rows) if model.repeats else rows % block_rows
    kept = first == rows % block_rows
    count = torch.zeros(-(-N // block_rows), dtype=torch.int64, device=numbers.device)
    count.index_add_(0, rows // block_rows, kept.long())
    blocks: dict[int, Tensor] = {}
    for own in count.unique().tolist():  # blocks of as many rows are coded together
        ids = (count == own).nonzero()[:, 0]
        mine = numbers[ids[0] * block_rows :][: len(ids) * own]  # they follow each other
        if model.repeats:
            mine = numbers[kept & (count[rows // block_rows] == own)]
        parts = [
            _references(first, kept, ids, block_rows)
            if model.repeats
            else [numbers.new_empty(0, dtype=torch.uint8)] * len(ids)
        ]
        for i, data in zip(ids.tolist(), zip(*parts, *_parts(mine, own, model), strict=True), strict=True):
            blocks[i] = torch.cat(data)
    return [blocks[i] for i in range(len(count))]


def _references(first: Tensor, kept: Tensor, ids: Tensor, block_rows: int) -> list[Tensor]:
    """Return of each block the number of its rows that are kept, and, if others are, the place of each."""
    found = []
    for i in ids.tolist():
        mine, here = (part[i * block_rows : (i + 1) * block_rows] for part in (first, kept))
        places = (here.cumsum(0) - 1)[mine]
        head = here.sum()[None] - 1
        found.append(_u16(head if bool(here.all()) else torch.cat([head, places])))
    return found


def _u16(values: Tensor) -> Tensor:
    return torch.stack([values & 255, values >> 8], 1).to(torch.uint8).flatten()


def _parts(numbers: Tensor, rows: int, model: Model) -> Iterator[list[Tensor]]:
    """Yield parts of blocks of `rows` rows: sizes of coded parts but the last, coded parts, packed bits."""
    streams, sizes = [], []
    for field in model.coded:
        levels = field.of(_columns(numbers, field.coded)).int()
        stream, lengths = rans_encode(levels, rows, *field.model())
        sizes.append(lengths.tolist())
        streams.append(list(stream.split(sizes[-1])))
    if len(sizes) > 1:
        heads = (b"".join(map(_SIZE.pack, own)) for own in zip(*sizes[:-1], strict=True))
        yield [torch.frombuffer(bytearray(head), dtype=torch.uint8).to(numbers.device) for head in heads]
    yield from streams
    for low, width, columns in model.packed():
        bits = bits_of(_columns(numbers, columns), low, width).int().reshape(-1, rows * len(columns))
        yield list(pack_bits(bits, width))


def _columns(numbers: Tensor, columns: Tensor) -> Tensor:
    return numbers if len(columns) == numbers.shape[1] else numbers.index_select(1, columns)


def decode_lossless(
    model: Tensor | Model,
    stream: Tensor,
    starts: Tensor,
    n: int,
    d: int,
    dtype: torch.dtype,
    block_rows: int,
    blocks: Sequence[int],
) -> Tensor:
    """Decode some blocks of `encode_lossless`.

    Parameters
    ----------
    model, stream : Tensor
        (bytes,) uint8, as they were made. For many calls the model can be what `read_model` makes of it.
    starts : Tensor
        (len(blocks), 2) int64: the first byte in `stream` of each of these blocks, and that after its last.
    n, d : int
        Rows and columns of the matrix.
    dtype : torch.dtype
        That of the matrix.
    block_rows : int
        As it was coded.
    blocks : sequence of int
        Numbers of the blocks to decode, in any order.

    Returns
    -------
    Tensor
        Rows of the blocks in their order, (rows, d).

    Raises
    ------
    FormatError
        If the bytes are not those of such blocks. It names the first that is wrong.
    """
    known = model if isinstance(model, Model) else read_model(model, d)
    if len(blocks) == 0:
        return torch.zeros((0, d), dtype=dtype, device=stream.device)
    rows = [min(block_rows, n - b * block_rows) for b in blocks]
    places = [Place(b, *ends) for b, ends in zip(blocks, starts.tolist(), strict=True)]
    for place in places:
        if not 0 <= place.first <= place.last <= len(stream):
            raise wrong(place.block)
    kept = [
        kept_rows(stream, place, own) if known.repeats else own
        for place, own in zip(places, rows, strict=True)
    ]
    found: dict[int, Tensor] = {}
    for own in sorted(set(kept)):
        mine = [i for i, count in enumerate(kept) if count == own]
        bodies = [body_of(places[i], own, rows[i], known.repeats) for i in mine]
        decoded = known.numbers.back(numbers_of_blocks(stream, bodies, own, d, known), dtype).view(-1, own, d)
        found |= dict(zip(mine, decoded, strict=True))
    return torch.cat([unfolded(found[i], stream, places[i], rows[i]) for i in range(len(places))])
