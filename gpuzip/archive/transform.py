"""Rows in principal directions, quantized by a trellis: the lossy codes of an archive."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks
from gpuzip.archive._varints import first, packed, unpacked
from gpuzip.archive.basis import Loadings, Moments, completed, loadings
from gpuzip.archive.classes import CLASSES, DEAD, classes_of
from gpuzip.archive.quantized import fitted_tables, offsets, offsets_of, quantized
from gpuzip.archive.tables import Tables, bits_of, counted, normal_tables
from gpuzip.errors import FormatError
from gpuzip.ops.levels import rows_of_levels, steps_of
from gpuzip.ops.rans import rans_decode, rans_encode
from gpuzip.ops.trellis import LARGEST, STATES, next_states
from gpuzip.storage.archive import Blocks

#: Columns of rows, at most: directions take D * D floats.
LARGEST_WIDTH = 1 << 13
_MOST_NUMBERS = 1 << 18
_ROWS = 256  # at a time
_LARGEST = torch.finfo(torch.float32).max
_HEAD = struct.Struct("<If")  # bytes of the numbers, and the step of the mean


#: Arguments of the entropy coder: tables of columns, frequencies, values and the trellis.
Coder = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Transform:
    """What turns rows into levels and back.

    Attributes
    ----------
    step : float
        Distance of neighbouring levels.
    states : int
        States of the trellis.
    unit : bool
        Rows have length 1, and decoded ones get it.
    mean : (D,) float32 tensor
    basis : (D, C) float32 tensor, or (C,) int64 tensor
        Orthonormal directions of the columns that are coded; or, without directions, which columns those are.
    classes : (C,) int64 tensor
        Their classes.
    tables : Tables
    offset : (CLASSES, 3) int8 tensor
    model : bytes
        All of this but step, states and unit.
    dictionary : str
        Hash of the dictionary that has what the model lacks, or "".
    """

    step: float
    states: int
    unit: bool
    mean: Tensor
    basis: Tensor
    classes: Tensor
    tables: Tables
    offset: Tensor
    model: bytes
    dictionary: str = ""

    @property
    def d(self) -> int:
        """Columns of the rows."""
        return len(self.mean)

    @property
    def device(self) -> torch.device:
        """Where rows are coded."""
        return self.mean.device

    def to(self, device: torch.device) -> Transform:
        """The same on another device."""
        return replace(self, mean=self.mean.to(device), basis=self.basis.to(device))

    def config(self) -> dict[str, Any]:
        """The settings that the model does not hold."""
        own = {"step": self.step, "states": self.states, "unit": self.unit}
        return own | ({"dictionary": self.dictionary} if self.dictionary else {})

    def levels_of(self, x: Tensor) -> Tensor:
        """Rows (N, D) -> levels (N, C) int32."""
        values = projected(x, self.mean, self.basis, self.step)
        return quantized(values, self.classes, self.tables, self.states).levels

    def pack(self, levels: Tensor, block_rows: int) -> Blocks:
        """Levels (N, C) int32 -> their stream."""
        stream, lengths = rans_encode(levels, block_rows, *self._coder)
        return Blocks(stream, lengths.cpu().cumsum(0), block_rows)

    def unpack(self, stream: Tensor, spans: Tensor, n: int, block_rows: int) -> tuple[Tensor, Tensor]:
        """Blocks -> levels (n, C) int32, and which blocks are sound, (blocks,) bool."""
        return rans_decode(stream, spans, n, block_rows, *self._coder)

    @cached_property
    def _coder(self) -> Coder:
        return coder(self.tables, self.classes, self.states, self.device)

    @cached_property
    def _offsets(self) -> Tensor:
        return offsets_of(self.offset, self.classes).to(self.device)

    @cached_property
    def _directions(self) -> Tensor:
        return (self.basis.T * self.step).contiguous()

    def _on_axes(self, levels: Tensor) -> Tensor:
        rows = self.mean.repeat(len(levels), 1)
        return rows.index_add_(1, self.basis, steps_of(levels, self._offsets), alpha=self.step)

    def rows_of(self, levels: Tensor) -> Tensor:
        """Levels (N, C) int32 -> rows (N, D) float32."""
        if self.basis.ndim == 1:
            rows = self._on_axes(levels)
        else:
            rows = rows_of_levels(levels, self._offsets, self._directions, self.mean)
        return _normalized(rows) if self.unit else rows


def _normalized(rows: Tensor) -> Tensor:
    """Divide rows (N, D) in place by their lengths, some at a time."""

    def some(start: int, stop: int) -> None:
        part = rows[start:stop]
        torch.nn.functional.normalize(part, out=part)

    map_blocks(some, len(rows), _ROWS if rows.device.type == "cpu" else max(1, len(rows)))
    return rows


def coder(
    tables: Tables, classes: Tensor, states: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Arguments of the entropy coder: tables of columns, frequencies, values and the trellis."""
    parts = (tables.index(classes), tables.frequencies, tables.values, next_states(states))
    first, second, third, fourth = (part.to(device) for part in parts)
    return first, second, third, fourth


def projected(x: Tensor, mean: Tensor, basis: Tensor, step: float) -> Tensor:
    """Rows (N, D) -> (N, C) float32 along the directions of `Transform.basis`, in steps."""
    if basis.ndim == 1:
        return ((x.float() - mean)[:, basis] * (mean.new_ones(()) / step)).contiguous()
    return matrix_product(torch.mm, x.float() - mean, basis / step)


@dataclass(frozen=True)
class Learned:
    """A transform for a step, and what rows take by it.

    Attributes
    ----------
    transform : Transform
    row_bits : float
        Bits per row of the sample, before whole words.
    decoded : (n, D) float32 tensor
        The sample, decoded.
    kept : float
        Share of rows with levels that are too large, which are stored as they are.
    """

    transform: Transform
    row_bits: float
    decoded: Tensor
    kept: float


def learned(
    moments: Moments,
    sample: Tensor,
    step: float,
    rank: int,
    states: int,
    unit: bool,
) -> Learned:
    """Learn the transform of rows for a step and a number of directions."""
    load = loadings(moments, rank, step)
    coded = quantized(load.values, load.classes, normal_tables(load.classes), states)
    mean, directions = decoded_loadings(coded.levels, load.mean_step)
    spread = moments.spread(directions) / step
    every_class = classes_of(spread)
    every_class[0].clamp_(min=0)  # at least one column is coded
    kept = every_class != DEAD
    classes = every_class[kept]
    mean, basis = (part.to(sample.device) for part in (mean.float(), _basis(directions, kept)))
    values = projected(sample, mean, basis, step)
    beside = counted(coded.levels, coded.sides, load.classes)
    tables, found = fitted_tables(values, classes, states, beside)
    offset = offsets(values, classes, found)
    model = written(coded.levels, load, every_class, tables, offset, states)
    transform = Transform(step, states, unit, mean, basis, classes, tables, offset, model)
    bits = bits_of(counted(found.levels, found.sides, classes), tables) / max(1, len(sample))
    return Learned(transform, bits, transform.rows_of(found.levels), share_beyond(found.levels))


def beyond(levels: Tensor) -> Tensor:
    """Levels (N, C) -> (N,) bool: rows with levels that are too large to be coded."""
    if levels.numel() == 0 or (int(levels.max()) < LARGEST and int(levels.min()) > -LARGEST):
        return torch.zeros(len(levels), dtype=torch.bool, device=levels.device)
    return levels.abs().amax(1) >= LARGEST


def share_beyond(levels: Tensor) -> float:
    """The share of such rows."""
    return float(beyond(levels).double().mean())


def decoded_loadings(levels: Tensor, mean_step: float) -> tuple[Tensor, Tensor | None]:
    """Levels (D, 1 + R) of a basis -> the mean (D,) and all directions (D, D), float64; None for the axes."""
    values = levels.cpu().double()
    return values[:, 0] * mean_step, completed(values[:, 1:]) if levels.shape[1] > 1 else None


def _basis(directions: Tensor | None, kept: Tensor) -> Tensor:
    """What `Transform.basis` has of these directions."""
    return kept.nonzero()[:, 0] if directions is None else directions[:, kept].float()


def written(
    levels: Tensor, load: Loadings, classes: Tensor, tables: Tables, offset: Tensor, states: int
) -> bytes:
    """The model as bytes: numbers, and the levels of the basis."""
    numbers = [load.values.shape[1] - 1, *_differences(load.classes), *_differences(classes)]
    numbers += offset[tables.classes].flatten().tolist()
    text = packed([*tables.numbers(), *numbers])
    of_tables = coder(tables, load.classes, states, torch.device("cpu"))
    stream, _ = rans_encode(levels.cpu(), len(levels), *of_tables)
    return _HEAD.pack(len(text), load.mean_step) + text + stream.numpy().tobytes()


def read(model: bytes, d: int, step: float, states: int, unit: bool) -> Transform:
    """The transform of a model. Raises FormatError for bytes that `written` does not make."""
    if len(model) < _HEAD.size:
        raise FormatError(f"a model must have at least {_HEAD.size} bytes; got {len(model)}.")
    if not 0 < d <= LARGEST_WIDTH:
        raise FormatError(f"rows must have 1 to {LARGEST_WIDTH} columns; got {d}.")
    length, mean_step = _HEAD.unpack_from(model)
    if not 0 < mean_step < float("inf"):
        raise FormatError("the step of a mean must be a number above 0.")
    numbers = unpacked(model[_HEAD.size : _HEAD.size + length], _MOST_NUMBERS)
    tables = Tables.read(numbers)
    (rank,) = first(numbers, 1, 0, d)
    of_basis = _classes(numbers, 1 + rank, tables)
    every_class = _classes(numbers, d, tables)
    offset = torch.zeros((CLASSES, 3), dtype=torch.int8, device="cpu")
    found = first(numbers, 3 * len(tables.classes), -127, 127)
    offset[tables.classes] = torch.tensor(found, dtype=torch.int8, device="cpu").view(-1, 3)
    if next(numbers, None) is not None:
        raise FormatError("a model must end after its offsets.")
    stream = torch.frombuffer(bytearray(model), dtype=torch.uint8)
    spans = torch.tensor([[_HEAD.size + length, len(model)]], dtype=torch.int64, device="cpu")
    levels, sound = rans_decode(stream, spans, d, d, *coder(tables, of_basis, states, stream.device))
    if not bool(sound.all()):
        raise FormatError("the basis of a model must be a whole block; it is damaged.")
    mean, directions = decoded_loadings(levels, mean_step)
    kept = every_class != DEAD
    parts = mean.float(), _basis(directions, kept), every_class[kept]
    return Transform(step, states, unit, *parts, tables, offset, model)


def _differences(classes: Tensor) -> list[int]:
    return torch.diff(classes, prepend=classes.new_zeros(1)).tolist()


def _classes(numbers: Iterator[int], count: int, tables: Tables) -> Tensor:
    found = torch.tensor(first(numbers, count, -CLASSES, CLASSES), dtype=torch.int64, device="cpu").cumsum(0)
    known = torch.tensor([DEAD, *tables.classes], dtype=torch.int64, device="cpu")
    if not bool(torch.isin(found, known).all()):
        raise FormatError("a column must be of a class that has tables.")
    return found


def check_settings(config: dict[str, Any]) -> None:
    """Raise FormatError for settings that gpuzip does not write."""
    kinds = {name: type(value) for name, value in config.items() if name != "dictionary"}
    if kinds != {"step": float, "states": int, "unit": bool} or not 0 < config["step"] < _LARGEST:
        raise FormatError(f"settings must be step, of float32, states and unit; got {config!r:.200}.")
    if config["states"] not in STATES:
        raise FormatError(f"settings must have a trellis that exists; got {config!r:.200}.")
    if not isinstance(config.get("dictionary", ""), str):
        raise FormatError(f"dictionary must be a hash; got {config['dictionary']!r:.200}.")
