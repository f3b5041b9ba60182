"""Programs that start a data engine, as tests run them, and whether they left a process behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import gpuzip

ROOT = Path(__file__).parents[2]
_MARK = "GPUZIP_TEST_RUN"


def run(module: str, *arguments: object, timeout: float = 500, status: int = 0) -> str:
    """What a module prints to stderr. Raises AssertionError for another status and for processes left."""
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
    assert gone(mark), "processes of the engine are left running"
    return done.stderr


def gone(mark: str, patience: float = 20) -> bool:
    """Whether no process has the mark in its environment, or soon none has."""
    until = time.monotonic() + patience
    while any(mark in environment_of(process) for process in Path("/proc").iterdir()):
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def environment_of(process: Path) -> str:
    try:
        return (process / "environ").read_text(errors="replace") if process.name.isdigit() else ""
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
