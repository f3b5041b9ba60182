"""The step with which rows take so many bytes, or keep so much."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gpuzip.archive.basis import Moments, best_rank
from gpuzip.archive.sample import Sample
from gpuzip.archive.transform import Learned, learned
from gpuzip.errors import GpuzipError

_TRIALS, _MORE_TRIALS = 12, 24  # steps for a number of directions, and if none of them will do
_CHOICES = 3  # numbers of directions
_PATIENCE = 6  # steps, after which ever further ones are tried if none is good enough
_FURTHER = 0.05  # the first of these, in logarithms
_CLOSE = 2e-4  # logarithms of steps that are as good as equal
_FINEST, _COARSEST = 2.0**-22, 2.0**4  # steps over the spread of values
_LOSS = 0.26  # squared error of a value that is coded, in squared steps
_SURE = 2.0  # standard errors between a mean of a sample and what is promised for all rows

#: What is more than this below the aim is tried again.
_NEAR = 2e-3

#: How far a trial is off the aim: rising with the step, 0 at the aim, in logarithms.
Miss = Callable[[Learned], float]


#: The transform for a step.
Learn = Callable[[float], Learned]


def closest(sample: Sample, states: int, miss: Miss, *, finer_is_better: bool, start: float) -> Learned:
    """The transform with the coarsest step (or the finest one) at which nothing is missed.

    miss: as `Miss`; finer_is_better: at most 0 is needed, else at least 0.
    """
    rank, at = -1, start
    found: Learned | None = None
    for _ in range(_CHOICES):
        before, rank = rank, best_rank(sample.moments, at)
        if rank == before:
            break
        learn = partial(_of_rank, sample, states, rank)
        found = solved(learn, sample, miss, finer_is_better=finer_is_better, start=at)
        at = found.transform.step
    assert found is not None  # of the first choice
    return found


def _of_rank(sample: Sample, states: int, rank: int, step: float) -> Learned:
    return learned(sample.moments, sample.rows, step, rank, states, sample.unit)


def solved(learn: Learn, sample: Sample, miss: Miss, *, finer_is_better: bool, start: float) -> Learned:
    """`closest` of what `learn` returns. Raises GpuzipError if no step will do."""
    spread = math.sqrt(float(sample.moments.covariance.diagonal().mean())) or 1.0
    bounds = math.log(_FINEST * spread), math.log(_COARSEST * spread)
    wanted = -_NEAR / 2 if finer_is_better else _NEAR / 2
    tried: list[tuple[float, float]] = []  # logarithms of steps and what was missed
    best, at = None, min(max(math.log(start), bounds[0]), bounds[1])
    for trial in range(_MORE_TRIALS):
        if trial >= _TRIALS and best is not None:
            break
        found = learn(_short(math.exp(at)))
        off = miss(found)
        if off <= 0 if finer_is_better else off >= 0:
            best = _better(best, found, finer_is_better)
            if abs(off) < _NEAR:
                break
        tried.append((at, off - wanted))
        at = min(max(_next(tried), bounds[0]), bounds[1])
        close = any(abs(at - before) < _CLOSE for before, _ in tried)
        if close and (best is not None or at in bounds):
            break
        if best is None and (close or trial >= _PATIENCE):
            side = -1 if finer_is_better else 1
            at = side * max(side * before for before, _ in tried)  # where nothing was tried yet
            at += side * _FURTHER * 2.0 ** max(0, trial - _PATIENCE)
            at = min(max(at, bounds[0]), bounds[1])
    if best is None:
        raise GpuzipError("TransformCoder.fit: no step reaches this aim. Ask for less, or use lossless=True.")
    return best


def _better(best: Learned | None, found: Learned, coarser: bool) -> Learned:
    if best is None or coarser == (found.transform.step > best.transform.step):
        return found
    return best


def _next(tried: list[tuple[float, float]]) -> float:
    """Where the line through the last trials, or through those on either side of 0, crosses it."""
    last, off = tried[-1]
    slope = 1.0
    if len(tried) > 1:
        before, was = tried[-2]
        slope = min(max((off - was) / (last - before), 0.3), 4.0)
    at = last - min(max(off / slope, -3.0), 3.0)
    below = max((trial for trial in tried if trial[1] <= 0), default=None)
    above = min((trial for trial in tried if trial[1] > 0), default=None)
    if below is not None and above is not None and not below[0] < at < above[0]:
        return (below[0] + above[0]) / 2
    return at


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
