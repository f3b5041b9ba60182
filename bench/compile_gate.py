"""Compile every kernel for GPUs that need not be here, and read what each one takes and is made of.

    python -m bench.compile_gate [--op assign ...] [--target sm_90 ...] [--write] [--every]

Each launcher runs on tensors without memory under a driver that names a GPU and has none: triton specialises
and compiles just what a launch there would, and nothing is launched. A new op is picked up by itself.
Compiled are the sizes in use (`production`, or the samples of an op that has none there), each tile once.
--every adds the samples, each multiple of 16 apart, and the odd sizes (`odd`). The exit status is 1 when a
kernel

- does not compile, or asks for more shared memory than the GPU has, and its launcher has no simpler form to
  fall back to (`launch_or`);
- keeps values on the stack, or adds floats atomically;
- lacks the tensor-core or POPC instructions that bench/gate/meant.py says it is meant to have;

and, with --every for all ops, when some sizes get a tile that nothing compiled has. --write puts the table,
one line for each kernel, tile and target, into bench/results/compile_gate.csv.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import triton

from bench.gate import machine_code, meant, table, workers
from bench.gate.build import Built, build
from bench.gate.production import odd, production
from bench.gate.rows import TARGETS, Row
from bench.gate.tiles import Tiles
from bench.markdown import RESULTS
from gpuzip.ops import OPS

FILE = RESULTS / "compile_gate.csv"


class Found(NamedTuple):
    """rows: one for each specialisation of each kernel on each target. problems: what fails the gate."""

    rows: list[Row]
    problems: list[str]


class _Work(NamedTuple):
    built: list[Built]
    tiles: Tiles


def compile_op(target: str, op: str, every: bool = False) -> _Work:
    """What the launcher of an op compiles on a target, and the tiles that it chose."""
    module, launcher = _kernel(op)
    samples = list(OPS[op].samples("cpu"))
    once, apart = list(production(op)) or samples, []
    if every:
        once, apart = list(odd(op)), [*production(op), *samples]
    tiles = Tiles()
    with tiles.watch(_modules()):
        return _Work(build(target, launcher, getattr(module, launcher), once, apart), tiles)


def _kernel(op: str) -> tuple[ModuleType, str]:
    module, _, launcher = OPS[op].kernel.partition(":")
    return importlib.import_module(module), launcher


def _modules() -> list[ModuleType]:
    """Each file of kernels once."""
    return list({module.__name__: module for module, _ in map(_kernel, OPS)}.values())


def compile_for(target: str, ops: list[str]) -> list[Row]:
    """The rows of some ops on one target, compiled in this process."""
    return _rows(target, [built for op in ops for built in compile_op(target, op).built])


def gate(ops: list[str], targets: list[str], jobs: int, every: bool = False) -> Found:
    """Compile, count and judge. Tiles and the table of meant.py can only be judged where all ops are here."""
    done = workers.run(partial(compile_op, every=every), targets, ops, jobs)
    rows = [Row(d.op, d.target, problem=d.death) for d in done if d.result is None]
    for target in targets:
        results = [d.result for d in done if d.target == target and d.result is not None]
        rows += _rows(target, [built for result in results for built in result.built])
    problems = [str(row) for row in rows if row.problem]
    if set(ops) == set(OPS):
        problems += meant.never_built({row.kernel for row in rows}, OPS)
        if every:
            problems += _unreached([d.result.tiles for d in done if d.result is not None])
    return Found(rows, problems)


def _rows(target: str, built: list[Built]) -> list[Row]:
    """The rows with their instructions counted, and the first thing that is wrong with each."""
    compiled = [b for b in built if b.code]
    rows = [b.row for b in built if not b.code]
    found = machine_code.opcodes(TARGETS[target], [b.code for b in compiled])
    for b, opcodes in zip(compiled, found, strict=True):
        row = replace(b.row, instructions=len(opcodes), counts=machine_code.count(opcodes))
        rows.append(replace(row, problem=meant.problem(row)))
    return rows


def _unreached(found: list[Tiles]) -> Iterator[str]:
    """Tiles that no launch chose on any target."""
    tiles = Tiles()
    for one in found:
        tiles.add(one)
    for module in _modules():
        yield from tiles.unreached(module)


def main() -> int:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m bench.compile_gate", description=summary)
    parser.add_argument("--op", nargs="+", choices=sorted(OPS), default=list(OPS), help="only these ops")
    parser.add_argument(
        "--target", nargs="+", choices=list(TARGETS), default=list(TARGETS), help="only these"
    )
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, len(TARGETS)), help="processes")
    parser.add_argument(
        "--write", nargs="?", const=FILE, type=Path, help="write the table, for every op and target"
    )
    parser.add_argument(
        "--every", action="store_true", help="samples and odd sizes too, and tiles that nothing reaches"
    )
    chosen = parser.parse_args()
    if triton.knobs.runtime.interpret:
        parser.error("TRITON_INTERPRET is set, and the interpreter compiles nothing. Unset it.")
    if chosen.write and (set(chosen.op) != set(OPS) or set(chosen.target) != set(TARGETS)):
        parser.error("--write needs every op and every target.")
    start = time.perf_counter()
    rows, problems = gate(chosen.op, chosen.target, chosen.jobs, chosen.every)
    lines = table.worst(rows)
    print(table.text(lines))
    for problem in problems:
        print(f"PROBLEM {problem}")
    fallen = len({(row.kernel, row.target) for row in rows if row.fallback})
    seconds = time.perf_counter() - start
    print(
        f"triton {triton.__version__}: {len(rows)} kernels in {len(lines)} lines, {len(problems)} problems, "
        f"{fallen} fall back, {seconds:.0f} s"
    )
    if chosen.write:
        chosen.write.write_text(table.written(lines), encoding="utf-8")
    return 1 if problems or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
