"""Programs that start a data engine, as tests run them, and whether they left a process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import gpuzip

ROOT = Path(__file__).parents[2]
_MARK = "GPUZIP_TEST_RUN"


def run(module: str, *arguments: object, timeout: float = 1200, status: int = 0) -> str:
    """What a module prints to stderr. Raises AssertionError for another status and for processes left.

    An engine whose driver is killed ends by itself, later: what it leaves is killed here.
    """
    mark = str(uuid.uuid4())
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env=os.environ | {_MARK: mark, "PYTHONPATH": path, "RAY_DATA_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == status, done.stderr[-4000:]
    left = still_running(mark, killed=status == -signal.SIGKILL)
    assert not left, f"processes of the engine are left running: {left}"
    return done.stderr


def still_running(mark: str, killed: bool, patience: float = 300) -> list[str]:
    """The commands of the processes that have the mark in their environment, once some time has passed."""
    until = time.monotonic() + patience
    while left := [process for process in Path("/proc").iterdir() if mark in read(process / "environ")]:
        if killed:
            for process in left:
                with suppress(ProcessLookupError):
                    os.kill(int(process.name), signal.SIGKILL)
        if time.monotonic() > until:
            return [read(process / "cmdline").replace("\0", " ") for process in left]
        time.sleep(0.2)
    return []


def read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def written(folder: Path, n: int, d: int, files: int) -> tuple[Tensor, Path, gpuzip.Codes]:
    """Rows as Parquet in folder / "rows", the file of a codec, and the codes of one process."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    codec = gpuzip.ProductQuantizer(m=d // 4, nbits=4).fit(x[:2000])
    (folder / "rows").mkdir()
    for number, ids in enumerate(np.array_split(np.arange(n), files)):
        flat = pa.array(x[ids].numpy().reshape(-1))
        rows = pa.FixedSizeListArray.from_arrays(flat, d)
        parquet.write_table(
            pa.table({"id": ids, "embedding": rows}),
            folder / "rows" / f"{number:04}.parquet",
            row_group_size=8192,
        )
    codec.save(folder / "codec.ezip")
    return x, folder / "codec.ezip", codec.encode(x)
