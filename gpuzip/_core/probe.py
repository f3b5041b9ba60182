"""Choose the fastest of several equivalent paths on this computer, timed once per process in milliseconds.

CPU features alone do not tell which path is fastest: torch._int_mm is, where a CPU has VNNI or AMX, and is a
plain loop elsewhere. All paths give the same answer, so the choice changes no result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from gpuzip._core.parallel import after_fork, map_blocks

_ROUNDS = 4
_BEHIND = 2  # a path is timed again unless it takes more than this many times the best

_lock = threading.RLock()
_chosen: dict[tuple[str, tuple[str, ...]], str] = {}


def fastest(work: str, paths: Mapping[str, Callable[[], Any]]) -> str:
    """The name of the path that takes the least time. The choice is kept for the life of the process.

    work: a name for the task. paths: by name, functions that each do a small piece of it; of equally fast
    ones the first is chosen.
    """
    key = work, tuple(paths)
    with _lock:
        if key not in _chosen:
            _chosen[key] = paths_by_time(paths)[0] if len(paths) > 1 else next(iter(paths))
        return _chosen[key]


def paths_by_time(
    paths: Mapping[str, Callable[[], Any]], clock: Callable[[], float] = time.perf_counter
) -> list[str]:
    """Names of the paths, the quickest first, by their least time over a few rounds on one thread.

    A first call is not counted, because a path may compile. A path that is far behind is not timed again.
    """

    def on_one_thread(start: int, stop: int) -> dict[str, float]:
        for path in paths.values():
            path()
        least = dict.fromkeys(paths, float("inf"))
        for _ in range(_ROUNDS):
            for name, path in paths.items():
                if least[name] == float("inf") or least[name] <= _BEHIND * min(least.values()):
                    before = clock()
                    path()
                    least[name] = min(least[name], clock() - before)
        return least

    (least,) = map_blocks(on_one_thread, 1, 1)
    return sorted(paths, key=least.__getitem__)


def _forget_lock() -> None:
    global _lock
    _lock = threading.RLock()


after_fork(_forget_lock)
