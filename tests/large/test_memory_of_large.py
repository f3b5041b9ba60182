"""The memory of compress_file: resident pages of all kinds above those of a process that has run it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np, torch, gpuzip

def status(name):
    with open("/proc/self/status") as lines:
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

def peak_of(work):
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    work()
    return status("VmHWM") - before

folder, form, memory = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(0)

def chunks(n=60):
    return (rng.standard_normal((5000, 384), dtype=np.float32) for _ in range(n))

sources = {"x.npy": folder / "x.npy", "x.parquet": folder / "x.parquet", "once": None}
if form == "x.npy" and not (folder / form).exists():
    rows = np.lib.format.open_memmap(folder / form, "w+", np.float32, (300_000, 384))
    for i, chunk in enumerate(chunks()):
        rows[5000 * i : 5000 * i + 5000] = chunk
    del rows
if form == "x.parquet":
    import pyarrow as pa, pyarrow.parquet
    kind = pa.list_(pa.float32(), 384)
    with pa.parquet.ParquetWriter(folder / form, pa.schema([("x", kind)])) as out:
        for chunk in chunks():
            column = pa.FixedSizeListArray.from_arrays(pa.array(chunk.reshape(-1)), type=kind)
            out.write_table(pa.table({"x": column}), row_group_size=50_000)
small = rng.standard_normal((3000, 384), dtype=np.float32)
for name in ("small.ezip", "small"):  # libraries and pools of threads take their memory now
    gpuzip.compress_file(small, folder / f"{form}{name}", "PQ48x8")
source = chunks() if form == "once" else sources[form]
how = dict(codec="PQ48x8", max_memory=memory)
print(peak_of(lambda: gpuzip.compress_file(source, folder / f"{form}.ezip", **how)))
if form == "x.npy":
    print(peak_of(lambda: gpuzip.compress_file(source, folder / f"{form}.data", **how)))
    data = gpuzip.Dataset.open(folder / f"{form}.data")
    print(peak_of(lambda: data.search(small[:300], k=10)))
"""


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("form", ["x.npy", "x.parquet", "once"])
def test_memory_stays_within_what_is_allowed(tmp_path: Path, form: str):
    """300,000 x 384 float32 is 461 MB, of which 268 MB may be resident."""
    allowed = 256 << 20
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), form, str(allowed)],
        env=os.environ | {"OMP_NUM_THREADS": "2"},  # each takes memory of its own
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    peaks = [int(line) for line in done.stdout.split()]
    assert all(0 < peak < allowed for peak in peaks), peaks
