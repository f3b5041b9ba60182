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
from typing import Any, NamedTuple

_STATUS = Path("/proc/self/status")
_SETTLE = 0.02  # OpenMP's threads spin for a while after a call, on cores that the other side's call needs
_FEW_QUERIES = 16

Call = Callable[[], Any]


class Pace(NamedTuple):
    """budget: seconds for the rounds of one case, of which there are `rounds`, least and most.

    longest: seconds that a call of a peer may take.
    """

    budget: float
    rounds: tuple[int, int]
    longest: float


_FULL, _QUICK = Pace(10.0, (5, 25), 10.0), Pace(1.0, (1, 5), 1.0)


def pace() -> Pace:
    return _QUICK if is_quick() else _FULL


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


def seconds(call: Call) -> float:
    time.sleep(_SETTLE)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def affordable(
    peers: dict[str, Call], name: str, call: Callable[..., Any], q: int
) -> dict[str, dict[str, Any]]:
    """Add the call, whose argument is a number of queries, to the peers, or say why it is not."""
    few = min(q, _FEW_QUERIES)
    call(few)
    expected = seconds(lambda: call(few)) * q / few
    if expected <= pace().longest:
        peers[name] = call
        return {}
    return {name: {"note": f"not timed: about {expected:.0f} s a call"}}


def in_turns(benchmark: Any, ours: Call, peers: dict[str, Call]) -> dict[str, dict[str, Any]]:
    """Run `ours` as the benchmark, every peer once right before each of its rounds; both have run before.

    Returns what each peer took: median and least seconds, peak memory, its median over ours as `ratio`,
    and its least over ours as `least_ratio`, which is near the other on a quiet machine.
    """
    # The calls that show the memory also show how many rounds there is time for.
    start = time.perf_counter()
    memory = peak_bytes(ours)
    found: dict[str, dict[str, Any]] = {
        name: {"peak_bytes": peak_bytes(call)} for name, call in peers.items()
    }
    least, most = pace().rounds
    rounds = round(min(max(pace().budget / (time.perf_counter() - start), least), most))
    times: dict[str, list[float]] = {name: [] for name in peers}

    def before_our_round() -> None:
        for name, call in peers.items():
            times[name].append(seconds(call))
        time.sleep(_SETTLE)

    benchmark.pedantic(ours, setup=before_our_round, rounds=rounds, iterations=1)
    benchmark.extra_info["peak_bytes"] = memory
    if benchmark.disabled:
        return found
    for name, took in times.items():
        found[name] |= {"median": median(took), "min": min(took)}
        found[name]["ratio"] = median(took) / benchmark.stats.stats.median
        found[name]["least_ratio"] = min(took) / benchmark.stats.stats.min
    return found
