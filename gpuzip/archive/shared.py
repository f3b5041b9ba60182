"""Transforms by a dictionary: what a file stores beside it is what its rows have of their own."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip.archive._varints import first, packed, unpacked
from gpuzip.archive.basis import Moments
from gpuzip.archive.classes import CLASSES, DEAD, classes_of, expected_cost
from gpuzip.archive.dictionary import PER_OCTAVE, Dictionary, along
from gpuzip.archive.quantized import fitted_tables, offsets, quantized
from gpuzip.archive.tables import MOST, SIDES, Tables, bits_of, counted
from gpuzip.archive.transform import Learned, Transform, projected, share_beyond
from gpuzip.errors import FormatError

_CLASS = PER_OCTAVE // 4  # logarithms per class
_FIRST = -6
_LARGEST = 1 << 20
_MOST_NUMBERS = 1 << 18
_OFF_BITS = 6.0  # of a value of the mean
_HEAD = struct.Struct("<f")


def learned_by(
    dictionary: Dictionary, moments: Moments, sample: Tensor, step: float, states: int, unit: bool
) -> Learned:
    """Learn what these rows have of their own beside a dictionary, for a step."""
    off, spread = along(dictionary, moments)
    steps, off_step = _own_mean(off, spread, moments, step)
    mean = _mean(dictionary, steps, off_step)
    every_class = classes_of(spread / step)
    every_class[0].clamp_(min=0)  # at least one column is coded
    kept = every_class != DEAD
    classes = every_class[kept]
    basis = dictionary.directions[:, kept].float().to(sample.device)
    mean = mean.float().to(sample.device)
    values = projected(sample, mean, basis, step)
    of_own, own = fitted_tables(
        values, classes, states, torch.zeros((CLASSES, SIDES, MOST + 2), dtype=torch.int64, device="cpu")
    )
    theirs = quantized(values, classes, dictionary.tables, states)
    counts = counted(theirs.levels, theirs.sides, classes)
    log_step = round(PER_OCTAVE * math.log2(step))
    start = [log_step, *(every_class - _expected(dictionary, log_step)).tolist()]
    start += [1, *steps.tolist()] if bool(steps.any()) else [0]
    of_own_offset = offsets(values, classes, own)
    with_tables = [1, *of_own.numbers(), *of_own_offset[of_own.classes].flatten().tolist()]
    own_bits = bits_of(counted(own.levels, own.sides, classes), of_own)
    saved = (bits_of(counts, dictionary.tables) - own_bits) * moments.n / max(1, len(sample)) / 8
    head = _HEAD.pack(off_step)
    model, plain = head + packed([*start, *with_tables]), head + packed([*start, 0])
    uses_own = saved > len(model) - len(plain)
    tables, offset, found = (
        (of_own, of_own_offset, own) if uses_own else (dictionary.tables, dictionary.offset, theirs)
    )
    transform = Transform(
        step,
        states,
        unit,
        mean,
        basis,
        classes,
        tables,
        offset,
        model if uses_own else plain,
        dictionary.hash,
    )
    bits = bits_of(counted(found.levels, found.sides, classes), tables) / max(1, len(sample))
    return Learned(transform, bits, transform.rows_of(found.levels), share_beyond(found.levels))


def _own_mean(off: Tensor, spread: Tensor, moments: Moments, step: float) -> tuple[Tensor, float]:
    """The mean of rows along directions, in steps: (D,) int64 and their step; zeros if they do not pay."""
    off_step = float(torch.tensor(2 * step / max(1.0, moments.n) ** 0.5, dtype=torch.float32, device="cpu"))
    steps = (off / off_step).round().clamp(-_LARGEST, _LARGEST).long()
    with_it = expected_cost(spread / step).sum()
    without = expected_cost((spread.square() + off.square()).sqrt() / step).sum()
    pays = moments.n * 2 * float(without - with_it) > _OFF_BITS * len(off)
    return (steps if pays else torch.zeros_like(steps)), off_step


def _mean(dictionary: Dictionary, steps: Tensor, off_step: float) -> Tensor:
    return dictionary.mean + matrix_product(torch.mv, dictionary.directions, steps.double() * off_step)


def _expected(dictionary: Dictionary, log_step: int) -> Tensor:
    """(D,) int64: the classes that columns have by the spread of the dictionary's rows."""
    found = torch.div(dictionary.logs - log_step + _CLASS // 2, _CLASS, rounding_mode="floor") - _FIRST
    return torch.where(found < 0, DEAD, found.clamp(max=CLASSES - 1))


def restored(config: dict[str, Any], model: bytes, dictionary: Dictionary) -> Transform:
    """The transform of a file. Raises FormatError for settings or bytes that gpuzip does not write."""
    if len(model) < _HEAD.size:
        raise FormatError(f"a model must have at least {_HEAD.size} bytes; got {len(model)}.")
    (off_step,) = _HEAD.unpack_from(model)
    numbers, d = unpacked(model[_HEAD.size :], _MOST_NUMBERS), dictionary.d
    (log_step,) = first(numbers, 1, -_LARGEST, _LARGEST)
    differences = torch.tensor(first(numbers, d, -CLASSES, CLASSES), dtype=torch.int64, device="cpu")
    every_class = _expected(dictionary, log_step) + differences
    steps = torch.zeros(d, dtype=torch.int64, device="cpu")
    if first(numbers, 1, 0, 1) == [1]:
        steps = torch.tensor(first(numbers, d, -_LARGEST, _LARGEST), dtype=torch.int64, device="cpu")
    tables, offset = dictionary.tables, dictionary.offset
    if first(numbers, 1, 0, 1) == [1]:
        tables = Tables.read(numbers)
        offset = torch.zeros((CLASSES, 3), dtype=torch.int8, device="cpu")
        found = first(numbers, 3 * len(tables.classes), -127, 127)
        offset[tables.classes] = torch.tensor(found, dtype=torch.int8, device="cpu").view(-1, 3)
    kept = every_class != DEAD
    known = torch.tensor([DEAD, *tables.classes], dtype=torch.int64, device="cpu")
    if (
        next(numbers, None) is not None
        or not math.isfinite(off_step)
        or not bool(torch.isin(every_class, known).all())
    ):
        raise FormatError("a model must have the classes of its columns, and end after its tables.")
    parts = (
        _mean(dictionary, steps, off_step).float(),
        dictionary.directions[:, kept].float(),
        every_class[kept],
    )
    settings = config["step"], config["states"], config["unit"]
    return replace(Transform(*settings, *parts, tables, offset, model), dictionary=dictionary.hash)
