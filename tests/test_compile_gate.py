"""Every kernel compiles for GPUs that are not here, and keeps nothing on the stack."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")


def gate(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "bench.compile_gate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def test_every_kernel_compiles_for_every_target():
    run = gate()
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    launched = re.findall(
        r"(_\w+)\[[^\]]*\]\(", "".join(path.read_text() for path in (ROOT / "kernels").glob("*.py"))
    )
    assert len(launched) >= 9
    for kernel in launched:
        for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
            assert re.search(rf"^{kernel} .* {target} .* ok$", run.stdout, re.MULTILINE), (kernel, target)
    assert " 0 with a problem" in run.stdout


def test_a_kernel_that_cannot_compile_fails_the_gate(tmp_path):
    """The gate on a kernel whose launcher asks for a tile that is no power of two."""
    script = """
import bench.compile_gate as gate
import gpuzip.kernels.decode as decode
decode._tile = lambda D: (7, 16)
rows = gate.compile_for("sm_90", ["decode"])
assert rows and all(row.problem for row in rows), rows
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT)
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path, env=environment, check=True)
