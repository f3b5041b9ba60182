"""The fastest of several roads to the same answer on this computer, timed once per process in milliseconds.

What is fast differs between processors by more than a list of features says: torch._int_mm is the fastest
where a CPU has VNNI or AMX, and a plain loop elsewhere. All roads give the same answer, so what is chosen
changes no result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from gpuzip._core.parallel import map_blocks

_ROUNDS = 4
_BEHIND = 2  # times the best that a road may take to be timed again

_lock = threading.RLock()
_chosen: dict[tuple[str, tuple[str, ...]], str] = {}


def fastest(work: str, roads: Mapping[str, Callable[[], Any]]) -> str:
    """The name of the road that takes the least time; asked again, the same.

    work: what the roads do. roads: each does a small piece of it; the first is taken if all are as fast.
    """
    key = work, tuple(roads)
    with _lock:
        if key not in _chosen:
            _chosen[key] = roads_by_time(roads)[0] if len(roads) > 1 else next(iter(roads))
        return _chosen[key]


def roads_by_time(
    roads: Mapping[str, Callable[[], Any]], clock: Callable[[], float] = time.perf_counter
) -> list[str]:
    """Names of the roads, the quickest first, by the least of a few rounds in turns, on one thread.

    A first call is not counted, as a road may compile. What is far behind is not timed again.
    """

    def on_one_thread(start: int, stop: int) -> dict[str, float]:
        for road in roads.values():
            road()
        least = dict.fromkeys(roads, float("inf"))
        for _ in range(_ROUNDS):
            for name, road in roads.items():
                if least[name] == float("inf") or least[name] <= _BEHIND * min(least.values()):
                    before = clock()
                    road()
                    least[name] = min(least[name], clock() - before)
        return least

    (least,) = map_blocks(on_one_thread, 1, 1)
    return sorted(roads, key=least.__getitem__)
