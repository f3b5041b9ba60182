"""Nsight Compute on the kernels that are furthest from their floors, by the last rows of the roofline.

    python -m tools.roof.profile [--count 3] [--rehearse]
    python -m tools.roof.profile --one encode "N=1e+06 M=48 K=256 float32"

The clocks are left alone. Where ncu is not installed nothing is profiled. --rehearse prints the commands and
runs each case's call once on the CPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

import torch

from bench.checkout import Row, read
from gpuzip.ops import OPS
from tools.roof.cases import bound, cases
from tools.roof.results import folder

NAME = "roofline"


def furthest(rows: list[Row], count: int) -> list[tuple[str, str]]:
    """(kernel, case) of the smallest shares, each kernel once, by the last row of each case."""
    last = {(row["kernel"], row["case"]): float(row["share"]) for row in rows if row["kernel"] in OPS}
    worst: dict[str, tuple[str, str]] = {}
    for kernel, case in sorted(last, key=lambda key: last[key]):
        worst.setdefault(kernel, (kernel, case))
    return list(worst.values())[:count]


def command(kernel: str, case: str) -> list[str]:
    """The second call of a case under ncu: the first one compiles and warms up."""
    ncu = ["ncu", "--clock-control", "none", "--set", "full", "--nvtx", "--nvtx-include", "profiled/"]
    return [*ncu, sys.executable, "-m", "tools.roof.profile", "--one", kernel, case]


def run_one(kernel: str, name: str, device: str) -> None:
    N, op = 10**8 if device == "cuda" else 1_000, OPS[kernel]
    place = [(case.op, case.name) for case in cases(10**8)].index((kernel, name))
    arguments = bound(op, list(cases(N))[place].make(device))
    op.call(*arguments)
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.nvtx.range_push("profiled")
        op.call(*arguments)
        torch.cuda.synchronize()
        torch.cuda.nvtx.range_pop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.roof.profile")
    parser.add_argument("--count", type=int, default=3, help="kernels")
    parser.add_argument("--one", nargs=2, metavar=("KERNEL", "CASE"), help="call this case twice")
    parser.add_argument("--rehearse", action="store_true", help="profile nothing")
    chosen = parser.parse_args()
    if chosen.one:
        run_one(chosen.one[0], chosen.one[1], "cuda")
        return 0
    rows = read(NAME, folder()) or read(NAME)
    if not rows:
        print(f"{NAME}.csv has no rows yet: run python -m tools.roofline first. Nothing was profiled.")
        return 2
    chosen_cases = furthest(rows, chosen.count)
    if not chosen.rehearse and shutil.which("ncu") is None:
        print("ncu is not on the PATH. Nothing was profiled.")
        return 0
    for kernel, case in chosen_cases:
        print(f"== {kernel} {case}\n{' '.join(command(kernel, case))}", flush=True)
        if chosen.rehearse:
            run_one(kernel, case, "cpu")
        else:
            subprocess.run(command(kernel, case), check=False, timeout=120, env=os.environ)
    return 0


if __name__ == "__main__":
    sys.exit(main())
