"""How fast archives are written and read, each case in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import torch

import gpuzip
from bench.apart import each
from bench.archive_bytes import Packer, jzip, lossless_packers
from bench.archive_exact import unit_rows
from bench.archive_rows import result, saved
from bench.measure import peak_bytes

DIALS: dict[str, dict[str, Any]] = {
    "min_cosine=0.95": {"min_cosine": 0.95},
    "max_error=0.001": {"max_error": 1e-3},
    "lossless=True": {"lossless": True},
}
PEERS = ("zstd -3", "zstd -19", "lzma", "jzip")
#: Million values per second that 2 threads must reach with this dial, and the share of it without numba.
JUDGED = "min_cosine=0.95"
ENCODE, DECODE, PLAIN = 20.0, 40.0, 0.1
ROWS = 4000
_ROUNDS = 3
_SLOW = 5.0  # seconds, after which a call is not timed again
_FITTED = 256  # rows that are learned from without numba, which is not timed
_PATIENCE = 120.0


class Case(NamedTuple):
    """method: a dial, or a peer. loops: whether numba's loops are used."""

    method: str
    threads: int
    loops: bool
    rows: int


def measure(few: int | None) -> Iterable[dict[str, Any]]:
    n = min(few or ROWS, ROWS)
    cases = [Case(dial, threads, True, n) for dial in DIALS for threads in (1, 2)]
    cases += [Case(peer, 1, True, n) for peer in PEERS if peer != "jzip" or jzip()]
    yield from _measured(cases)
    with _without_loops():
        yield from _measured([Case(dial, 2, False, n) for dial in DIALS])


@contextmanager
def _without_loops() -> Iterator[None]:
    before = os.environ.get("GPUZIP_LOOPS")
    os.environ["GPUZIP_LOOPS"] = "0"
    try:
        yield
    finally:
        del os.environ["GPUZIP_LOOPS"]
        if before is not None:
            os.environ["GPUZIP_LOOPS"] = before


def _measured(cases: list[Case]) -> Iterator[dict[str, Any]]:
    for case, answer in zip(cases, each(_one, cases, _PATIENCE), strict=True):
        if answer.result is None:
            print(f"{case}: {answer.death}")
        else:
            yield answer.result


def _one(case: Case) -> dict[str, Any]:
    torch.set_num_threads(case.threads)
    x = unit_rows(case.rows)
    if case.method in DIALS:
        coder = gpuzip.TransformCoder(**DIALS[case.method]).fit(x[: None if case.loops else _FITTED])
        archive = coder.encode(x)
        encode: Callable[[], Any] = lambda: coder.encode(x)  # noqa: E731
        decode: Callable[[], Any] = archive.decode
        nbytes, name, dial = len(saved(archive)), "TransformCoder", case.method
    else:
        packer = _packer(case.method)
        data = packer.pack(x)
        encode, decode = lambda: packer.pack(x), lambda: packer.unpack(data, x)
        nbytes, name, dial = len(data), case.method, None
    decode()
    peak = max(peak_bytes(encode) or 0, peak_bytes(decode) or 0)
    rates = _rates("encode", encode, x.numel(), case.threads) | _rates(
        "decode", decode, x.numel(), case.threads
    )
    share = 1.0 if case.loops else PLAIN
    judged = case.method == JUDGED and case.threads == 2
    good = rates["encode_rate"] >= share * ENCODE and rates["decode_rate"] >= share * DECODE
    about: dict[str, Any] = {
        "part": "speed",
        "data": "float32",
        "method": name,
        "dial": dial,
        "nbytes": nbytes,
    }
    about |= {"ratio": x.nbytes / nbytes, "loops": case.loops, "workers": case.threads, "peak_bytes": peak}
    return result(x, **about, **rates, ok=good if judged else None)


def _packer(name: str) -> Packer:
    found = jzip() if name == "jzip" else lossless_packers()[name]
    if found is None:
        raise ModuleNotFoundError(name)
    return found


def _rates(name: str, call: Callable[[], Any], values: int, threads: int) -> dict[str, float]:
    """Million values per second of wall time, and with one thread of CPU time."""
    walls, cpus = [], []
    for _ in range(_ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        if walls[0] > _SLOW:
            break
    found = {f"{name}_rate": values / median(walls) / 1e6}
    return found | ({f"{name}_cpu_rate": values / median(cpus) / 1e6} if threads == 1 else {})
