"""Two workers of Ray compress Parquet into a Dataset, and one of them, or the driver, is killed.

python -m bench.ray_compress SOURCE CODEC TARGET VICTIM ROWS_PER_SHARD BATCH_SIZE
"""

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


def main(source: str, codec: str, target: str, victim: str, rows_per_shard: str, batch_size: str) -> None:
    """victim: "worker", killed while it encodes; "driver", once a shard is complete; or "nobody"."""
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20)
    threading.Thread(target=_kill, args=(victim, Path(target)), daemon=True).start()
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


def _kill(victim: str, target: Path) -> None:
    while victim == "driver":
        if len(list(target.glob("codes-*"))) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
    while victim == "worker":
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
