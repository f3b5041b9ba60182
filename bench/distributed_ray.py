"""Parquet compressed into a Dataset by two workers of Ray, one of them killed: time, memory, and every byte.

    python -m bench.distributed_ray [--rows 2000000]

Memory is that of all processes of Ray and of the driver, the object store included: anonymous and shared
pages, each page once. A full run writes bench/results/distributed_ray.csv; the exit status is 1 when it takes
more than 2 GB, or a row is not there once with the bytes of one process. Needs the extra ray.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

import gpuzip
from bench.data import D, made_blocks, sample
from bench.record import main

ROWS, LIMIT = 2_000_000, 2 * 10**9
_M, _NBITS, _SHARD, _BATCH = 48, 8, 1 << 17, 2048
_FILE = 1 << 16  # rows of a file
_MARK = "GPUZIP_BENCH_RUN"


def _write(folder: Path, codec: Any, rows: int) -> torch.Tensor:
    """Parquet of so many rows; returns the codes of one process."""
    folder.mkdir()
    codes, start, number = [], 0, 0
    held: list[torch.Tensor] = []
    for block in made_blocks(rows):
        codes.append(codec.encode(block).data[:])
        held.append(block)
        if sum(map(len, held)) >= _FILE or start + sum(map(len, held)) == rows:
            x = torch.cat(held)
            values = pa.FixedSizeListArray.from_arrays(pa.array(x.numpy().reshape(-1)), D)
            table = pa.table({"id": np.arange(start, start + len(x)), "embedding": values})
            parquet.write_table(table, folder / f"{number:04}.parquet", row_group_size=8192)
            start, number, held = start + len(x), number + 1, []
    return torch.cat(codes)


class _Peak:
    """The most memory of the processes with a mark in their environment, while it is watched."""

    bytes: int

    def __init__(self, mark: str) -> None:
        self.bytes, self._mark, self._is_done = 0, mark.encode(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Peak:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._is_done.wait(0.2):
            self.bytes = max(self.bytes, sum(map(self._of, Path("/proc").glob("[0-9]*"))))

    def _of(self, process: Path) -> int:
        try:
            if self._mark not in (process / "environ").read_bytes():
                return 0
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            return 0
        return sum(
            int(line.split()[1]) * 1024 for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem"))
        )


def _is_whole(folder: Path, want: torch.Tensor) -> bool:
    data = gpuzip.Dataset.open(folder)
    ids = np.asarray(data.ids)
    codes = np.concatenate([np.asarray(shard.codes.data[:]) for shard in data._view.shards])
    order = ids.argsort()
    return bool(np.array_equal(ids[order], np.arange(len(want)))) and np.array_equal(
        codes[order], want.numpy()
    )


def measure(few: int | None) -> Iterator[dict[str, Any]]:
    rows = few or ROWS
    codec = gpuzip.ProductQuantizer(m=_M, nbits=_NBITS).fit_quietly(sample().embeddings)
    with tempfile.TemporaryDirectory() as folder:
        want = _write(Path(folder, "rows"), codec, rows)
        codec.save(Path(folder, "codec.ezip"))
        mark, target = str(uuid.uuid4()), Path(folder, "data")
        paths = [str(Path(folder, name)) for name in ("rows", "codec.ezip", "data")]
        command = [sys.executable, "-m", "bench.ray_compress", *paths, "worker", str(_SHARD), str(_BATCH)]
        start = time.perf_counter()
        with _Peak(mark) as peak:
            run = subprocess.run(
                command, env=os.environ | {_MARK: mark}, capture_output=True, text=True, check=False
            )
        took = time.perf_counter() - start
        if run.returncode or "killed" not in run.stderr:
            raise RuntimeError(run.stderr[-2000:])
        yield {
            "rows": rows,
            "d": D,
            "m": _M,
            "nbits": _NBITS,
            "workers": 2,
            "killed": 1,
            "seconds": took,
            "rate": int(rows / took),
            "peak_bytes": peak.bytes,
            "limit_bytes": LIMIT,
            "same": (same := _is_whole(target, want)),
            "ok": same and peak.bytes <= LIMIT,
        }


if __name__ == "__main__":
    sys.exit(main("distributed_ray", __doc__, measure))
