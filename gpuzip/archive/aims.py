"""The step with which rows take so many bytes, or keep so much."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gpuzip.archive.basis import Moments, best_rank
from gpuzip.archive.tables import Tables
from gpuzip.archive.transform import Learned, learned
from gpuzip.errors import GpuzipError

_TRIALS = 12  # steps for a number of directions
_CHOICES = 3  # numbers of directions
_CLOSE = 1e-3  # logarithms of steps that are as good as equal
_FINEST, _COARSEST = 2.0**-22, 2.0**4  # steps over the spread of values
_LOSS = 0.26  # squared error of a value that is coded, in squared steps
_SURE = 2.0  # standard errors between a mean of a sample and what is promised for all rows

#: What is more than this below the aim is tried again.
_NEAR = 2e-3

#: How far a trial is off the aim: rising with the step, 0 at the aim, in logarithms.
Miss = Callable[[Learned], float]


@dataclass(frozen=True)
class Sample:
    """Rows to learn from.

    Attributes
    ----------
    rows : (n, D) float32 tensor
    moments : Moments
        Of these rows, or of more.
    is_all : bool
        Whether these are all rows that will be coded.
    unit : bool
        Whether rows have length 1.
    """

    rows: Tensor
    moments: Moments
    is_all: bool
    unit: bool


def closest(sample: Sample, states: int, miss: Miss, *, finer_is_better: bool, start: float) -> Learned:
    """The transform with the coarsest step (or the finest one) at which nothing is missed.

    miss: as `Miss`; finer_is_better: at most 0 is needed, else at least 0.
    """
    rank = -1
    found: Learned | None = None
    for _ in range(_CHOICES):
        before, rank = rank, best_rank(sample.moments, start)
        if rank == before:
            break
        found = _found(sample, states, miss, finer_is_better, start, rank)
        if found is None:
            break
        start = found.transform.step
    if found is None:
        raise GpuzipError("TransformCoder.fit: no step reaches this aim. Ask for less, or use lossless=True.")
    return found


def _found(
    sample: Sample, states: int, miss: Miss, finer_is_better: bool, start: float, rank: int
) -> Learned | None:
    """`closest` for a number of directions."""
    spread = math.sqrt(float(sample.moments.covariance.diagonal().mean())) or 1.0
    bounds = math.log(_FINEST * spread), math.log(_COARSEST * spread)
    wanted = -_NEAR / 2 if finer_is_better else _NEAR / 2
    tried: list[tuple[float, float]] = []  # logarithms of steps and what was missed
    best, at = None, min(max(math.log(start), bounds[0]), bounds[1])
    tables: Tables | None = None
    for _ in range(_TRIALS):
        found = learned(sample.moments, sample.rows, _short(math.exp(at)), rank, states, sample.unit, tables)
        tables, off = found.transform.tables, miss(found)
        holds = off <= 0 if finer_is_better else off >= 0
        if holds:
            best = (
                found
                if best is None or finer_is_better == (found.transform.step > best.transform.step)
                else best
            )
            if abs(off) < _NEAR:
                break
        tried.append((at, off - wanted))
        at = min(max(_next(tried), bounds[0]), bounds[1])
        if any(abs(at - before) < _CLOSE for before, _ in tried):
            break
    return best


def _better(best: Learned | None, found: Learned, coarser: bool) -> Learned:
    if best is None or coarser == (found.transform.step > best.transform.step):
        return found
    return best


def _next(tried: list[tuple[float, float]]) -> float:
    """Where a line through the two most useful trials crosses 0: those nearest to it on either side."""
    below = max((trial for trial in tried if trial[1] <= 0), default=None)
    above = min((trial for trial in tried if trial[1] > 0), default=None)
    if below is not None and above is not None and above[0] > below[0]:
        part = min(max(-below[1] / (above[1] - below[1]), 0.02), 0.98)
        return below[0] + part * (above[0] - below[0])
    last, off = tried[-1]
    slope = 1.0
    if len(tried) > 1 and last != tried[-2][0]:
        slope = min(max((off - tried[-2][1]) / (last - tried[-2][0]), 0.2), 4.0)
    return last - min(max(off / slope, -1.5), 1.5) * 1.02


def _short(step: float) -> float:
    """The step with few digits, as files store it."""
    return float(f"{step:.5g}")


def step_of_cosine(moments: Moments, cosine: float) -> float:
    """About the step at which rows keep this cosine."""
    variances, _ = moments.principal
    energy = float(variances.sum() + moments.mean.square().sum())
    return _step_of_error(variances, (1 - min(cosine, 1 - 1e-9) ** 2) * energy)


def step_of_bits(moments: Moments, bits: float) -> float:
    """About the step at which rows take so many bits."""
    variances, _ = moments.principal
    low, high = 1e-30, float(variances.max()) or 1.0
    for _ in range(100):
        level = math.sqrt(low * high)
        needed = float((variances / level).clamp(min=1).log2().sum()) / 2
        low, high = (level, high) if needed > bits else (low, level)
    return math.sqrt(low / _LOSS)


def _step_of_error(variances: Tensor, error: float) -> float:
    low, high = 1e-30, float(variances.max()) or 1.0
    for _ in range(100):
        level = math.sqrt(low * high)
        low, high = (low, level) if float(variances.clamp(max=level).sum()) > error else (level, high)
    return math.sqrt(low / _LOSS)


def misses_cosine(sample: Sample, aim: float) -> Miss:
    """How far a trial is from a mean cosine of rows."""

    def miss(found: Learned) -> float:
        cosine = torch.nn.functional.cosine_similarity(sample.rows, found.decoded, dim=1)
        cosine = cosine[sample.rows.abs().amax(1) > 0].double()
        if not len(cosine):
            return 0.0
        sure = float(cosine.mean())
        if not sample.is_all and len(cosine) > 1:
            sure -= _SURE * float(cosine.std()) / math.sqrt(len(cosine))
        return math.log(max(1 - sure, 1e-12) / max(1 - aim, 1e-12))

    return miss


def misses_row_error(sample: Sample, aim: float) -> Miss:
    """How far the worst row of a trial is from an error, as a length."""

    def miss(found: Learned) -> float:
        worst = torch.linalg.vector_norm(sample.rows - found.decoded, dim=1).max()
        return math.log(max(float(worst), 1e-30) / aim)

    return miss


def misses_bytes(aim: float, taken: Callable[[Learned], float]) -> Miss:
    """How far a trial is below so many bytes; `taken` counts them."""
    return lambda found: math.log(aim / taken(found))
