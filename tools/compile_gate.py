"""Compile every kernel for GPUs that need not be here, and read what each one takes and is made of.

    python -m tools.compile_gate [--op assign ...] [--target sm_90 ...] [--write] [--every]

Each launcher runs on tensors without memory under a driver that names a GPU and has none: triton specialises
and compiles just what a launch there would, and nothing is launched. A new op is picked up by itself.
Compiled are the sizes in use (`production`, or the samples of an op that has none there), each tile once.
--every adds the samples, each multiple of 16 apart, and the odd sizes (`odd`). The exit status is 1 when a
kernel

- does not compile, or asks for more shared memory than the GPU has, and its launcher has no simpler form to
  fall back to (`launch_or`);
- keeps values on the stack, or adds floats atomically;
- lacks the tensor-core or POPC instructions that tools/gate/meant.py says it is meant to have;

- on sm_90, gathers or stores 2 bytes at a time in a loop, has warps that repeat each other's work, or is the
  only program of a multiprocessor that multiplies by warp groups, unless meant.py says why;
- has other loops than tools/gate/work.py states;

and, with --every for all ops, when some sizes get a tile that nothing compiled has. Then, for sm_90, comes
the time that the machine code of the roofline's cases implies, modelled, beside the floor (model.py).
--write puts the tables into bench/results/compile_gate.csv, one line for each kernel, tile and target, and
compile_gate_times.csv; those of a triton other than the newest have its version in the name.
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
from typing import Any, NamedTuple

import triton

from bench.checkout import RESULTS
from gpuzip.ops import OPS
from tools.gate import machine_code, meant, model, pipes, sass, table, workers
from tools.gate.build import Built, build
from tools.gate.production import odd, production
from tools.gate.rows import TARGETS, Row
from tools.gate.sass import Code
from tools.gate.tiles import Tiles

NAMES = ("compile_gate", "compile_gate_times")


class Found(NamedTuple):
    """rows: one for each specialisation of each kernel on each target. problems: what fails the gate.

    times: of the cases that are modelled, on sm_90.
    """

    rows: list[Row]
    problems: list[str]
    times: list[model.Time]


def model_op(target: str, op: str) -> list[model.Time]:
    """The modelled times of the cases of an op."""
    return list(model.times([op]))


class _Work(NamedTuple):
    built: list[Built]
    tiles: Tiles


def compile_op(target: str, op: str, every: bool = False) -> _Work:
    """What the launcher of an op compiles on a target, and the tiles that it chose."""
    module, launcher = _kernel(op)
    tiles = Tiles()
    with tiles.watch(_modules()):
        samples = list(OPS[op].samples("cpu"))
        once, apart = list(production(op)) or samples, []
        if every:
            once, apart = list(odd(op)), [*production(op), *samples]
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
    alive = [d.op for d in done if d.target == "sm_90" and d.result is not None]
    times, of_times = _times(alive)
    return Found(rows, problems + of_times, times)


def _times(ops: list[str]) -> tuple[list[model.Time], list[str]]:
    """Modelled times of the cases of ops that compile, and their problems."""
    cased = {op for op, _ in model.LIMITS}
    done = workers.run(model_op, ["sm_90"], [op for op in ops if op in cased], 1)
    times = [time for d in done if d.result is not None for time in d.result]
    deaths = [f"the model of {d.op}: {d.death}" for d in done if d.result is None]
    return times, deaths + [f"{time.op} {time.case}: {time.problem}" for time in times if time.problem]


def _rows(target: str, built: list[Built]) -> list[Row]:
    """The rows with their instructions counted, and the first thing that is wrong with each."""
    compiled = [b for b in built if b.code]
    rows = [b.row for b in built if not b.code]
    found = machine_code.instructions(TARGETS[target], [b.code for b in compiled])
    for b, code in zip(compiled, found, strict=True):
        counts = machine_code.count(instruction.opcode for instruction in code)
        row = replace(b.row, instructions=len(code), counts=counts, **_of_a_processor(b.row, code))
        rows.append(replace(row, problem=meant.problem(row, code, b.layouts)))
    return rows


def _of_a_processor(row: Row, code: Code) -> dict[str, Any]:
    """Programs that an H100's multiprocessor holds, and the largest pipe of the largest loop."""
    if row.target != "sm_90":
        return {}
    blocks = pipes.blocks(row.registers or 0, row.shared or 0, row.warps)
    found = max(
        sass.loops(code), key=lambda loop: loop.last - loop.first, default=sass.Loop(0, len(code) - 1)
    )
    cycles = pipes.total(code[found.first : found.last + 1])
    pipe = pipes.largest(cycles)
    return {"blocks": blocks, "loop": f"{pipe} {cycles[pipe] * row.warps:.0f}"}


def _unreached(found: list[Tiles]) -> Iterator[str]:
    """Tiles that no launch chose on any target."""
    tiles = Tiles()
    for one in found:
        tiles.add(one)
    for module in _modules():
        yield from tiles.unreached(module)


def main() -> int:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.compile_gate", description=summary)
    parser.add_argument("--op", nargs="+", choices=sorted(OPS), default=list(OPS), help="only these ops")
    parser.add_argument(
        "--target", nargs="+", choices=list(TARGETS), default=list(TARGETS), help="only these"
    )
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, len(TARGETS)), help="processes")
    parser.add_argument(
        "--write", nargs="?", const=RESULTS, type=Path, help="write the tables, for every op and target"
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
    rows, problems, times = gate(chosen.op, chosen.target, chosen.jobs, chosen.every)
    lines = table.worst(rows)
    print(table.text(lines))
    if times:
        print("\nModelled times of sm_90, of which nothing is measured:")
        print(table.text_of_times(table.of_times(times)))
    for problem in problems:
        print(f"PROBLEM {problem}")
    fallen = len({(row.kernel, row.target) for row in rows if row.fallback})
    seconds = time.perf_counter() - start
    print(
        f"triton {triton.__version__}: {len(rows)} kernels in {len(lines)} lines, {len(problems)} problems, "
        f"{fallen} fall back, {seconds:.0f} s"
    )
    if chosen.write:
        path, path_of_times = (table.file_of(name, chosen.write) for name in NAMES)
        path.write_text(table.written(lines), encoding="utf-8")
        path_of_times.write_text(table.written(table.of_times(times), table.TIMES), encoding="utf-8")
    return 1 if problems or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
