"""Speeds of a codec on this computer."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpuzip._core.device import is_gpu
from gpuzip.codecs.codes import Codes

_ROWS = 4096  # most rows to encode and decode at a time
_QUERIES = 64  # most queries to search for at a time
_SECONDS = 0.25  # after which nothing is timed again
_TIMES = 5


@dataclass(frozen=True)
class Speeds:
    """Rows encoded, rows decoded and queries answered per second."""

    encode: float
    decode: float
    search: float


def some_rows(trained: Tensor) -> Tensor:
    """The rows that are encoded and decoded."""
    return trained[:_ROWS]


def some_queries(queries: Tensor) -> Tensor:
    """The queries that are searched for."""
    return queries[:_QUERIES]


def speeds_of(codes: Codes, trained: Tensor, queries: Tensor, k: int) -> Speeds:
    """Speeds of a codec and its codes of the rows. Each is a median, after a first call that compiles."""
    rows, asked, codec = some_rows(trained), some_queries(queries), codes.codec
    few = codes[: len(rows)]
    return Speeds(
        encode=len(rows) / _seconds(lambda: codec.encode(rows), trained.device),
        decode=len(rows) / _seconds(few.decode, trained.device),
        search=len(asked) / _seconds(lambda: codes.search(asked, k), trained.device),
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    times: list[float] = []
    work()
    while len(times) < _TIMES and sum(times) < _SECONDS:
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return max(statistics.median(times), 1e-9)


def _wait(device: torch.device) -> None:
    if is_gpu(device):
        torch.cuda.synchronize(device)


def device_name(device: torch.device) -> str:
    """The name of a GPU, or of the processor and how many threads torch uses."""
    if is_gpu(device):
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{_processor()}, {threads} thread{'s' * (threads != 1)}"


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    if os.path.exists(told):
        for line in told.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown processor"
