"""Memory to train on, encode and search a matrix that is read from a memory map.

    python -m bench.memory [--rows 1000000]

Each task runs in a process of its own. Its peak is anonymous memory above what the process had after its
imports; pages of the map itself are the system's to drop, and are not counted. A full run writes
bench/results/memory.csv; the exit status is 1 when a task takes more than 1 GB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gpuzip
from bench.checkout import ROOT
from bench.data import D, made_blocks, sample
from bench.measure import PeakMemory
from bench.record import finish
from gpuzip import Codes, ProductQuantizer

ROWS = 1_000_000
LIMIT = 10**9

_M, _NBITS, _QUERIES = 48, 8, 256


def _make(path: Path, rows: int) -> None:
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


def _child(task: str, folder: Path) -> None:
    """What a process of its own runs: one task, measured."""
    with PeakMemory() as memory:
        call = TASKS[task](folder)
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
    print(json.dumps({"peak_bytes": memory.peak, "seconds": seconds}))


def measure(rows: int) -> list[dict[str, Any]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        _make(Path(folder, "x.npy"), rows)
        for task in TASKS:
            command = [sys.executable, "-m", "bench.memory", "--task", task, "--folder", folder]
            run = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            took = json.loads(run.stdout.splitlines()[-1])
            queries = _QUERIES if task == "search" else None
            row = {"task": task, "rows": rows, "d": D, "m": _M, "nbits": _NBITS, "queries": queries}
            ok = None if took["peak_bytes"] is None else took["peak_bytes"] <= LIMIT
            found.append(row | took | {"limit_bytes": LIMIT, "ok": ok})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.task:
        _child(chosen.task, chosen.folder)
        return 0
    rows = measure(chosen.rows)
    title = f"Peak memory, {D} columns, m={_M}, nbits={_NBITS}"
    heads = "task | rows | peak memory | limit | time | "
    cells = "{task} | {rows:,} | {peak_bytes:MB} | {limit_bytes:MB} | {seconds:s} | {ok:ok}"
    return finish("memory", rows, heads, cells, title=title, whole=chosen.rows == ROWS)


if __name__ == "__main__":
    sys.exit(main())
