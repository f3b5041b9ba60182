"""What a coder learns from rows, so that they reach its aim."""

from __future__ import annotations

from functools import partial

from gpuzip._core.rows import Rows
from gpuzip.archive import aims
from gpuzip.archive.dictionary import Dictionary, given_dictionary
from gpuzip.archive.sample import Sample, sample_of
from gpuzip.archive.scheme import Settings
from gpuzip.archive.shared import learned_by
from gpuzip.archive.transform import Learned
from gpuzip.errors import GpuzipError

_BESIDE = 700  # bytes of a file's header, about
_LANES = 32


def most_bytes(coder: Settings, rows: Rows) -> int | None:
    """The bytes that a file of these rows may have; None where the aim is another one."""
    if coder.bits_per_dim is not None:
        return int(rows.n * rows.d * coder.bits_per_dim / 8)
    return coder.max_bytes


def learned_for(coder: Settings, rows: Rows, most: float | None = None) -> Learned:
    """The transform of rows that reaches the aim of a coder; most: bytes, for fewer than it allows."""
    sample = sample_of(rows, coder.seed)
    moments = sample.moments
    if coder.min_cosine is not None:
        miss, finer = aims.misses_cosine(sample, coder.min_cosine), True
        start = aims.step_of_cosine(moments, coder.min_cosine)
    elif coder.max_row_error is not None:
        miss, finer = aims.misses_row_error(sample, coder.max_row_error), True
        start = 2 * coder.max_row_error / rows.d**0.5
    else:
        most = float(most or most_bytes(coder, rows) or 1)
        if not sample.is_all:
            most *= 1 - 2e-3
        beside = _beside(rows.n, coder.block_rows) + sample.left_out * (6 * rows.d + 8)
        miss, finer = aims.misses_bytes(most, partial(_bytes, rows, beside)), False
        start = aims.step_of_bits(moments, 8 * max(most - beside, most / 8) / rows.n)
    if coder.dictionary is None:
        return aims.closest(sample, coder.states, miss, finer_is_better=finer, start=start)
    dictionary = given_dictionary(coder.dictionary)
    if dictionary.d != rows.d:
        raise GpuzipError(
            f"TransformCoder.fit: x must have {dictionary.d} columns, as the dictionary; got {rows.d}."
        )
    learn = partial(_by_dictionary, dictionary, sample, coder.states)
    return aims.solved(learn, sample, miss, finer_is_better=finer, start=start)


def _beside(n: int, block_rows: int) -> int:
    """About the bytes of a file of n rows, without the rows and the model."""
    blocks = -(-n // block_rows)
    return blocks * (4 + 4 * min(_LANES, block_rows, n) + 8 + 1) + _BESIDE


def _bytes(rows: Rows, beside: int, found: Learned) -> float:
    of_kept = max(4, rows.dtype.itemsize) * rows.d + 8
    return rows.n * (found.row_bits / 8 + found.kept * of_kept) + len(found.transform.model) + beside


def _by_dictionary(dictionary: Dictionary, sample: Sample, states: int, step: float) -> Learned:
    return learned_by(dictionary, sample.moments, sample.rows, step, states, sample.unit)
