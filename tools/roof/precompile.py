"""Compile what the roofline launches, in many processes at once, so that nothing later waits for a compiler.

    python -m tools.roof.precompile [--jobs 16] [--few]

Kernels are compiled for the GPU at hand, or for sm_90 where there is none, on tensors without memory, into
triton's cache.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from multiprocessing import get_context

import torch

from tools.roof.cases import cases, present
from tools.roof.machine import compiled


def target() -> str:
    """The gate's name of the GPU at hand."""
    if not torch.cuda.is_available():
        return "sm_90"
    return "sm_{}{}".format(*torch.cuda.get_device_capability())


def compile_case(index: int, name: str) -> str:
    """What went wrong with a case, or nothing."""
    return compiled(list(present(cases(10**8)))[index], name)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.roof.precompile")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--few", action="store_true", help="only the first cases, for a rehearsal")
    chosen = parser.parse_args()
    from tools.gate.rows import TARGETS

    name = target()
    if name not in TARGETS:
        print(f"the gate does not know {name}; kernels compile when they are first launched")
        return 0
    start, count = time.perf_counter(), len(list(present(cases(10**8))))
    count = min(count, 2) if chosen.few else count
    with get_context("spawn").Pool(min(chosen.jobs, count)) as pool:
        problems = pool.starmap(compile_case, [(i, name) for i in range(count)], chunksize=1)
    for problem in filter(None, problems):
        print(f"PROBLEM {problem}")
    print(f"compiled {count} cases for {name} in {time.perf_counter() - start:.0f} s")
    return 1 if any(problems) else 0


if __name__ == "__main__":
    sys.exit(main())
