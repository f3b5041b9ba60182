"""Times on a GPU, by its own events: caches cold, medians, and the roofs of the same run."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from itertools import cycle, islice
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tools.roof.cases import tensor_bytes
from tools.roof.floors import Roofs

_BUDGET = 0.3  # seconds for the rounds of one case
_ROUNDS = 5, 50  # least and most
_CALLS = 20  # at least, in one round of a graph
_BUSY = 0.1  # seconds of work behind a reading of the clock


class Time(NamedTuple):
    """Seconds of a call. how: "graph" when calls were replayed, "calls" when the CPU launched each.

    clock: Hz of the multiprocessors while the calls ran.
    """

    median: float
    least: float
    peak_bytes: int
    how: str
    clock: float


def time_op(call: Callable[..., Any], arguments: list[Any]) -> Time:
    """Each call reads inputs that the cache does not hold, copies in turns when one set would fit there.

    The calls are captured once and replayed, so that launches of small kernels are not what is timed;
    where an op cannot be captured they are launched one by one.
    """
    sets = _sets(arguments)
    peak = _peak(lambda: call(*arguments))
    least = 1 if _event_seconds(lambda: call(*arguments)) > 0.01 else _CALLS
    calls = list(islice(cycle(sets), max(len(sets), least)))

    def one_round() -> None:
        for each in calls:
            call(*each)

    try:
        replay, how = _captured(one_round).replay, "graph"
    except RuntimeError:
        replay, how = one_round, "calls"
    took = [t / len(calls) for t in rounds(replay)]
    return Time(median(took), min(took), peak, how, clock_during(replay, median(took) * len(calls)))


def time_task(call: Callable[[], Any]) -> Time:
    """A whole task with its launches and waits, its inputs as they are."""
    peak = _peak(call)
    took = rounds(call)
    return Time(median(took), min(took), peak, "calls", clock_during(call, median(took)))


def rounds(call: Callable[[], Any]) -> list[float]:
    """Seconds of each of as many calls as fit in `_BUDGET`, after one that is not counted."""
    first = _event_seconds(call)
    first = min(first, _event_seconds(call))
    count = max(_ROUNDS[0], min(_ROUNDS[1], int(_BUDGET / max(first, 1e-9))))
    return [_event_seconds(call) for _ in range(count)]


def _event_seconds(call: Callable[[], Any]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def _sets(arguments: list[Any]) -> list[list[Any]]:
    """The arguments and copies of them, twice the cache together."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    copies = min(-(-2 * cache // max(1, tensor_bytes(arguments))), 64)
    copied = ([a.clone() if isinstance(a, Tensor) else a for a in arguments] for _ in range(copies - 1))
    return [arguments, *copied]


def _peak(call: Callable[[], Any]) -> int:
    """Bytes above those held before; the result counts."""
    call()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _captured(call: Callable[[], Any]) -> torch.cuda.CUDAGraph:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def measure_roofs() -> Roofs:
    """Copies of a gigabyte, products of random matrices, and the clock that the products ran at."""
    n, size = 8192, 1 << 30
    a, b = (torch.randn((n, n), device="cuda", dtype=torch.float16) for _ in range(2))
    c, d = (torch.randint(-128, 128, (n, n), device="cuda", dtype=torch.int8) for _ in range(2))
    source = torch.empty(size, dtype=torch.uint8, device="cuda").random_()
    copy = torch.empty_like(source)
    return Roofs(
        copy=2 * size / median(rounds(lambda: copy.copy_(source))),  # bytes read and bytes written
        half=2 * n**3 / median(rounds(lambda: a @ b)),
        int8=2 * n**3 / median(rounds(lambda: torch._int_mm(c, d.T))),
        sms=torch.cuda.get_device_properties(0).multi_processor_count,
        clock=clock_during(lambda: a @ b, 2e-3),
    )


def clock_during(work: Callable[[], Any], seconds: float) -> float:
    """Hz of the multiprocessors a tenth of a second into this work, of which a call takes so many seconds.

    The clock falls where a GPU reaches its power limit, so each kernel is judged by its own.
    """
    for _ in range(max(1, min(1000, int(_BUSY / max(seconds, 1e-6))))):
        work()
    time.sleep(_BUSY / 2)
    try:
        return float(torch.cuda.clock_rate()) * 1e6
    except (ModuleNotFoundError, RuntimeError, AttributeError):  # no NVML: the highest it may be
        return float(getattr(torch.cuda.get_device_properties(0), "clock_rate", 1.755e6)) * 1e3
    finally:
        torch.cuda.synchronize()


def query_gpu(what: str) -> str:
    """One answer of nvidia-smi about the current GPU, by its UUID, as it may have another number there."""
    uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", f"--id={uuid}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
