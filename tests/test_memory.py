"""Peak memory of work that is larger than its input: bounded by constants, not by the number of rows."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys, threading, time
import numpy as np, torch, gpuzip

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024

def peak_of(work):
    before, seen, stop = anonymous(), [0], threading.Event()
    def watch():
        while not stop.wait(0.002):
            seen[0] = max(seen[0], anonymous())
    thread = threading.Thread(target=watch); thread.start()
    try: result = work()
    finally: stop.set(); thread.join()
    return max(seen[0], anonymous()) - before, result

rows = np.lib.format.open_memmap(sys.argv[1], mode="w+", dtype=np.float32, shape=(200_000, 384))
rng = np.random.default_rng(0)
for a in range(0, len(rows), 10_000):
    rows[a:a + 10_000] = rng.standard_normal((10_000, 384), dtype=np.float32)
rows.flush(); del rows
x = np.load(sys.argv[1], mmap_mode="r")
queries = rng.standard_normal((2000, 384), dtype=np.float32)
codec = gpuzip.ProductQuantizer(48, 4).fit(x, n_iter=1)
codec.encode(x[:5000]).search(queries[:300], 10)  # libraries and thread pools take their memory now
fit, codec = peak_of(lambda: gpuzip.ProductQuantizer(48, 4).fit(x, n_iter=3))
encode, codes = peak_of(lambda: codec.encode(x))
few, _ = peak_of(lambda: codes.search(queries[:5], 10, "ip"))
many, _ = peak_of(lambda: codes.search(queries, 10, "l2"))
print(fit, encode, few, many)
"""

MB = 1 << 20


@pytest.mark.full
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_training_encoding_and_searching_a_memory_map_stay_small(tmp_path):
    """200,000 x 384 float32 is 307 MB; Q x N scores of 2,000 queries would be 1,600 MB."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "x.npy")],
        env=os.environ | {"OMP_NUM_THREADS": "2"},  # each takes memory of its own
        capture_output=True,
        text=True,
        check=True,
    )
    fit, encode, few, many = (int(n) for n in run.stdout.split())
    assert fit < 100 * MB  # a sample of 256 rows a centroid, and a few times that
    assert encode < 200 * MB  # 5 MB of codes, a block of rows, tiles a thread
    assert few < 64 * MB
    assert many < 200 * MB  # search.memory.WORKSPACE, norms, tiles per thread
