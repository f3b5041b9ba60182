"""Time sides in turns by two clocks, and what the ratio of each round was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from statistics import median
from typing import NamedTuple

import faiss
import torch

from bench.measure import Call, is_quick


class Clock(NamedTuple):
    """A time and a number of threads. name: how its columns begin. settle: seconds of rest before a call."""

    name: str
    threads: int
    now: Callable[[], float]
    settle: float


#: CPU time of one thread, which other processes hardly change; and the time that passes, with two threads.
CLOCKS = (
    Clock("one", 1, time.process_time, 0.0),
    Clock("all", min(2, os.cpu_count() or 1), time.perf_counter, 0.02),
)

_SHORTEST = 0.002  # seconds of a sample; shorter calls are repeated
_MOST_REPEATS = 300
_TRIED, _LONG = 3, 0.02  # calls before the first round, and seconds of one that is not tried again
_ROUNDS = (3, 25)


class Spread(NamedTuple):
    """The ratio of a peer's time to ours: the least, median and greatest of the rounds."""

    low: float
    median: float
    high: float


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch, gpuzip and FAISS with so many threads; the other peers ask torch for the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        faiss.omp_set_num_threads(before)


def budget() -> float:
    """Seconds of a case by one clock."""
    return 0.2 if is_quick() else 2.0


def turns(calls: Mapping[str, Call], clock: Clock) -> dict[str, list[float]]:
    """Seconds of each call in every round; each has run before. Every second round is in reverse order."""
    repeats = {name: _repeats(call, clock) for name, call in calls.items()}
    took: dict[str, list[float]] = {name: [] for name in calls}
    start, order = time.perf_counter(), list(calls)
    for done in range(1, _ROUNDS[1] + 1):
        for name in order:
            took[name].append(_sample(calls[name], repeats[name], clock))
        order.reverse()
        spent = time.perf_counter() - start
        if (spent > budget() and done >= _ROUNDS[0]) or spent > 3 * budget():
            break
    return took


def _repeats(call: Call, clock: Clock) -> int:
    """How often a sample calls, by the least of a few calls: a first one may make what later ones keep."""
    least = _sample(call, 1, clock)
    for _ in range(_TRIED - 1):
        if least < _LONG:
            least = min(least, _sample(call, 1, clock))
    return min(ceil(_SHORTEST / max(least, 1e-9)), _MOST_REPEATS)


def _sample(call: Call, repeats: int, clock: Clock) -> float:
    time.sleep(clock.settle)
    start = clock.now()
    for _ in range(repeats):
        call()
    return (clock.now() - start) / repeats


def spread(peer: list[float], ours: list[float]) -> Spread:
    ratios = [theirs / mine for theirs, mine in zip(peer, ours, strict=True)]
    return Spread(min(ratios), median(ratios), max(ratios))
