"""Ray compresses Parquet into a Dataset, and somebody is killed: `python -m tests.distributed.compressing ...`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import ray

import gpuzip
from gpuzip.distributed import compress_dataset


def main(source: str, codec: str, target: str, victim: str, rows_per_shard: str) -> None:
    """victim: "worker", "driver" or "nobody"; killed once a shard is complete."""
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20)
    threading.Thread(target=_kill, args=(victim, Path(target)), daemon=True).start()
    try:
        compress_dataset(
            ray.data.read_parquet(source),
            "embedding",
            target,
            gpuzip.load_codec(codec),
            rows_per_shard=int(rows_per_shard),
            batch_size=1024,
        )
    finally:
        ray.shutdown()


def _kill(victim: str, target: Path) -> None:
    while victim != "nobody" and len(list(target.glob("codes-*"))) < 2:
        time.sleep(0.01)
    if victim == "driver":
        os.kill(os.getpid(), signal.SIGKILL)
    while victim == "worker":
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and b"ray::MapBatches" in _command(process):
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
