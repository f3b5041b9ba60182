"""Encoding and search over 1, 2 and 4 ranks of torch.distributed on this machine: time, bytes, overhead.

    python -m bench.distributed [--rows 100000]

Ranks are processes of one thread, joined by gloo. All of them together hold the rows. A call has ended once
the slowest rank has. The overhead is that of a single rank over the plain call, by CPU time, by turns. A full
run writes bench/results/distributed.csv; the exit status is 1 when the overhead of a search of 256 queries
is 5 % or more.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

import gpuzip
from bench.data import D, sample
from bench.memory import make
from bench.ranks import cluster
from bench.record import main
from gpuzip import distributed
from gpuzip.search.merge import best_of

ROWS, K = 100_000, 10
RANKS = (1, 2, 4)
QUERIES = (1, 256)
_M, _NBITS, _ROUNDS = 48, 8, 9
_OVERHEAD = 0.05
_PATIENCE = 900.0  # seconds of a call
_MERGED = 64  # ranks whose answers are merged, alone


def _encode(group: Any, folder: str) -> Any:
    codec, x = _held(group, folder)
    return _measured(group, lambda: distributed.encode(codec, x, group=group), 3)


def _search(group: Any, folder: str, queries: int) -> Any:
    codec, x = _held(group, folder)
    codes, asked = codec.encode(x), sample().queries[:queries].contiguous()
    return _measured(group, lambda: distributed.search(codes, asked, K, group=group), _ROUNDS)


def _overhead(group: Any, folder: str, queries: int) -> float:
    """CPU time of a search by a single rank over that of the plain call, less 1."""
    codec, x = _held(group, folder)
    codes, asked = codec.encode(x), sample().queries[:queries].contiguous()
    calls = (lambda: distributed.search(codes, asked, K, group=group), lambda: codes.search(asked, K))
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(3 * _ROUNDS):
        for call, times in zip(calls, took, strict=True):
            start = time.thread_time()
            call()
            times.append(time.thread_time() - start)
    return median(took[0]) / median(took[1]) - 1


def _held(group: Any, folder: str) -> tuple[Any, Any]:
    """The codec and the rows of this rank."""
    x = np.load(Path(folder, "x.npy"), mmap_mode="r")
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    part = slice(len(x) * rank // ranks, len(x) * (rank + 1) // ranks)
    return gpuzip.load_codec(Path(folder, "codec.ezip")), np.ascontiguousarray(x[part])


def _measured(group: Any, call: Callable[[], Any], rounds: int) -> tuple[list[float], int, int]:
    """Seconds of each round on this rank, and bytes and exchanges of one."""
    call()
    took = []
    for _ in range(rounds):
        dist.barrier(group)
        start = time.perf_counter()
        with distributed.traffic() as counted:
            call()
        took.append(time.perf_counter() - start)
    return took, counted.received, counted.calls


def _merge() -> float:
    """Seconds to merge the answers of _MERGED ranks."""
    values = torch.randn(
        (max(QUERIES), _MERGED * K), generator=torch.Generator().manual_seed(0), dtype=torch.float32
    )
    ids, took = torch.arange(values.numel()).view(values.shape), []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        best_of(values, ids, K, "ip")
        took.append(time.perf_counter() - start)
    return median(took)


def measure(few: int | None) -> Iterator[dict[str, Any]]:
    rows = few or ROWS
    with tempfile.TemporaryDirectory() as folder, cluster(max(RANKS), _PATIENCE) as ranks:
        make(Path(folder, "x.npy"), rows)
        gpuzip.ProductQuantizer(m=_M, nbits=_NBITS).fit_quietly(sample().embeddings).save(
            Path(folder, "codec.ezip")
        )
        about = {"rows": rows, "d": D, "m": _M, "nbits": _NBITS}
        for queries in (None, *QUERIES):
            one = 0.0
            for size in RANKS:
                work, asked = (_encode, ()) if queries is None else (_search, (queries,))
                found = ranks.call(work, [(folder, *asked)] * size)
                seconds = median(max(times) for times in zip(*(took for took, _, _ in found), strict=True))
                one = one or seconds
                over = None
                if size == 1 and queries is not None:
                    (over,) = ranks.call(_overhead, [(folder, queries)])
                judged = None if queries != max(QUERIES) or over is None else over < _OVERHEAD
                yield about | {
                    "operation": "encode" if queries is None else "search",
                    "queries": queries,
                    "k": None if queries is None else K,
                    "ranks": size,
                    "seconds": seconds,
                    "speedup": one / seconds,
                    "received": max(received for _, received, _ in found),
                    "exchanges": found[0][2],
                    "per": rows if queries is None else queries,
                    "overhead": over,
                    "ok": judged,
                }
        empty = dict.fromkeys(("speedup", "received", "exchanges", "overhead", "ok"))
        merged = {"queries": max(QUERIES), "k": K, "ranks": _MERGED, "seconds": _merge()}
        yield about | {"operation": "merge", **merged, "per": max(QUERIES)} | empty


if __name__ == "__main__":
    sys.exit(main("distributed", __doc__, measure))
