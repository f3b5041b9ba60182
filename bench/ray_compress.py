"""Two workers of Ray compress Parquet into a Dataset, and one of them, or the driver, is killed.

python -m bench.ray_compress SOURCE CODEC TARGET VICTIM ROWS_PER_SHARD BATCH_SIZE
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import ray

import gpuzip
from gpuzip import Dataset
from gpuzip.distributed import compress_dataset


def main(source: str, codec: str, target: str, victim: str, rows_per_shard: str, batch_size: str) -> None:
    """victim: "worker", killed while it encodes; "driver", once two shards are complete; or "nobody"."""
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20)
    if victim == "driver":
        setattr(Dataset, "append", _dying(Dataset.append))  # noqa: B010
    if victim == "worker":
        threading.Thread(target=_kill_a_worker, daemon=True).start()
    try:
        compress_dataset(
            ray.data.read_parquet(source),
            "embedding",
            target,
            gpuzip.load_codec(codec),
            rows_per_shard=int(rows_per_shard),
            batch_size=int(batch_size),
        )
    finally:
        ray.shutdown()


def _dying(append: Callable[..., None]) -> Callable[..., None]:
    """`Dataset.append` of a process that dies behind its second commit."""
    calls = count(1)

    def call(*arguments: Any) -> None:
        append(*arguments)
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    return call


def _kill_a_worker() -> None:
    while True:
        time.sleep(0.005)
        for process in Path("/proc").iterdir():
            command = _command(process) if process.name.isdigit() else b""
            if command.startswith(b"ray::") and b"MapBatches" in command:
                os.kill(int(process.name), signal.SIGKILL)
                print("killed", process.name, file=sys.stderr)
                return


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


if __name__ == "__main__":
    main(*sys.argv[1:])
