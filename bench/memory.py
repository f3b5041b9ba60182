"""Memory to train on, encode and search a matrix that is read from a memory map.

    python -m bench.memory [--rows 1000000]

Each task runs in a process of its own. Its peak is anonymous memory above what the process had after its
imports; pages of the map itself are the system's to drop, and are not counted. A full run writes
bench/results/memory.csv; the exit status is 1 when a task takes more than 1 GB.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import gpuzip
from bench import apart
from bench.data import D, made_blocks, sample
from bench.measure import PeakMemory, seconds
from bench.record import main
from gpuzip import Codes, ProductQuantizer

ROWS = 1_000_000
LIMIT = 10**9

_M, _NBITS, _QUERIES = 48, 8, 256
_PATIENCE = 3600.0  # seconds of a task


def make(path: Path, rows: int) -> None:
    """Write rows as an npy file."""
    matrix = np.lib.format.open_memmap(path, "w+", np.float32, (rows, D))
    start = 0
    for block in made_blocks(rows):
        matrix[start : start + len(block)] = block.numpy()
        start += len(block)
    matrix.flush()


# The codec goes from task to task as an .ezip file: of no rows after `train`, of all after `encode`.
def _train(folder: Path) -> Callable[[], Any]:
    x = np.load(folder / "x.npy", mmap_mode="r")
    return lambda: ProductQuantizer(m=_M, nbits=_NBITS).fit(x).encode(x[:0]).save(folder / "codec.ezip")


def _encode(folder: Path) -> Callable[[], Any]:
    x = np.load(folder / "x.npy", mmap_mode="r")
    codec = gpuzip.open(folder / "codec.ezip").codec
    return lambda: codec.encode(x).save(folder / "codes.ezip")


def _search(folder: Path) -> Callable[[], Any]:
    queries = sample().queries[:_QUERIES].contiguous()

    def run() -> None:
        mapped = gpuzip.open(folder / "codes.ezip")
        codes = Codes(mapped.codec, mapped.data.clone())  # in memory, so that they are counted
        codes.search(queries, 10, "cosine")

    return run


TASKS = {"train": _train, "encode": _encode, "search": _search}


def _measured(order: tuple[str, Path]) -> dict[str, Any]:
    """One task, in a process of its own."""
    task, folder = order
    with PeakMemory() as memory:
        took = seconds(TASKS[task](folder))
    return {"peak_bytes": memory.peak, "seconds": took}


def measure(few: int | None) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder, "x.npy"), few or ROWS)
        for task in TASKS:
            (answer,) = apart.each(_measured, [(task, Path(folder))], _PATIENCE)
            if answer.result is None:
                raise RuntimeError(f"{task}: {answer.death}")
            peak, queries = answer.result["peak_bytes"], _QUERIES if task == "search" else None
            about = {"task": task, "rows": few or ROWS, "d": D, "m": _M, "nbits": _NBITS, "queries": queries}
            yield (
                about | answer.result | {"limit_bytes": LIMIT, "ok": None if peak is None else peak <= LIMIT}
            )


if __name__ == "__main__":
    sys.exit(main("memory", __doc__, measure))
