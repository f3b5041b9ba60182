"""Time two sides in turns, and watch the memory that a call takes."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

_STATUS = Path("/proc/self/status")
_SETTLE = 0.02  # OpenMP's threads spin for a while after a call, on cores that the other side's call needs

T = TypeVar("T")
Call = Callable[[], Any]


class Pace(NamedTuple):
    """Limits of one case: seconds and numbers of its rounds, and seconds that one call of a peer may take."""

    budget: float
    rounds: tuple[int, int]
    longest: float


def pace() -> Pace:
    return Pace(1.0, (1, 5), 1.0) if is_quick() else Pace(10.0, (5, 25), 10.0)


def is_quick() -> bool:
    """Whether this is part of `python -m bench.run --quick`, which keeps no results."""
    return bool(os.environ.get("BENCH_QUICK"))


class PeakMemory:
    """Anonymous memory of this process above what it was on entry: the peak of samples a millisecond apart.

    with PeakMemory() as memory: ...
    memory.peak is in bytes, or None where the system has no /proc/self/status with RssAnon.
    """

    peak: int | None = None

    def __enter__(self) -> PeakMemory:
        _give_back_free_memory()
        self._start = _anonymous_bytes()
        self._most = self._start or 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if self._start is not None:
            self._look()
            self.peak = self._most - self._start

    def _watch(self) -> None:
        while self._start is not None and not self._done.wait(0.001):
            self._look()

    def _look(self) -> None:
        self._most = max(self._most, _anonymous_bytes() or 0)


def _anonymous_bytes() -> int | None:
    try:
        text = _STATUS.read_bytes()
    except OSError:
        return None
    _, found, rest = text.partition(b"RssAnon:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else None


def _give_back_free_memory() -> None:
    """Freed memory that the allocator still holds would hide as much of the next call's."""
    if os.name == "posix":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
        if trim is not None:
            trim(0)


def peak_bytes(call: Call) -> int | None:
    with PeakMemory() as memory:
        call()
    return memory.peak


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What the call gives, and its seconds."""
    time.sleep(_SETTLE)
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def seconds(call: Call) -> float:
    return timed(call)[1]


class Took(NamedTuple):
    """Seconds per call over the rounds, and the peak memory of one more call."""

    median: float
    least: float
    peak_bytes: int | None
    rounds: int

    def beside(self, peer: Took | None) -> dict[str, Any]:
        """Columns of a row: both sides, and the peer's time over this one's. None: it was not timed."""
        ours = {"rounds": self.rounds, "seconds": self.median, "peak_bytes": self.peak_bytes}
        ratio = peer and peer.median / self.median
        theirs = {"peer_seconds": peer and peer.median, "peer_peak_bytes": peer and peer.peak_bytes}
        return ours | theirs | {"ratio": ratio}


def in_turns(calls: dict[str, Call], rounds: int | None = None) -> dict[str, Took]:
    """Time every call once per round, in this order; each has run before.

    rounds: as many as `pace` has time for, where it is None.
    """
    start = time.perf_counter()
    peaks = [peak_bytes(call) for call in calls.values()]
    if rounds is None:
        limits = pace()
        rounds = round(limits.budget / (time.perf_counter() - start))
        rounds = min(max(rounds, limits.rounds[0]), limits.rounds[1])
    times = zip(*([seconds(call) for call in calls.values()] for _ in range(rounds)), strict=True)
    found = zip(calls, times, peaks, strict=True)
    return {name: Took(median(took), min(took), peak, rounds) for name, took, peak in found}
