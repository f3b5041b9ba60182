"""Compile every kernel for GPUs that need not be here, and read what each one takes and is made of.

    python -m tools.compile_gate [--op assign ...] [--target sm_90 ...] [--write] [--every]

Each launcher runs on tensors without memory under a driver that names a GPU and has none: triton specialises
and compiles just what a launch there would, and nothing is launched. A new op is picked up by itself.
tools/README.md says what fails the gate, what --every adds, and what the modelled times of sm_90 are. --write
puts the tables into bench/results/compile_gate.csv, one line for each kernel, tile and target, and
compile_gate_times.csv; those of a triton other than the newest have its version in the name.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import triton

from bench import apart
from bench.apart import Answer
from bench.cells import aligned
from bench.checkout import RESULTS
from gpuzip.ops import OPS
from tools.gate import machine_code, meant, model, pipes, sass, table
from tools.gate.build import Built, build
from tools.gate.production import odd, production
from tools.gate.rows import TARGETS, Row
from tools.gate.sass import Code
from tools.gate.tiles import Tiles
from tools.roof.cases import launcher

T = TypeVar("T")

PATIENCE = 600.0  # seconds for one op on one target
NAMES = ("compile_gate", "compile_gate_times")


class Found(NamedTuple):
    """rows: one for each specialisation of each kernel on each target. problems: what fails the gate.

    times: of the cases that are modelled, on sm_90.
    """

    rows: list[Row]
    problems: list[str]
    times: list[model.Time]


class Order(NamedTuple):
    target: str
    op: str
    every: bool = False


class _Work(NamedTuple):
    built: list[Built]
    tiles: Tiles


def model_op(order: Order) -> list[model.Time]:
    """The modelled times of the cases of an op."""
    return list(model.times([order.op]))


def compile_op(order: Order) -> _Work:
    """What the launcher of an op compiles on a target, and the tiles that it chose."""
    tiles = Tiles()
    with tiles.watch(_modules()):
        launch = launcher(order.op)
        samples = list(OPS[order.op].samples("cpu"))
        once, apart_too = list(production(order.op)) or samples, []
        if order.every:
            once, apart_too = list(odd(order.op)), [*production(order.op), *samples]
        return _Work(build(order.target, launch, once, apart_too), tiles)


def _modules() -> list[ModuleType]:
    """Each file of kernels once."""
    return [import_module(name) for name in dict.fromkeys(op.kernel.partition(":")[0] for op in OPS.values())]


def compile_for(target: str, ops: list[str]) -> list[Row]:
    """The rows of some ops on one target, compiled in this process."""
    return _rows(target, [built for op in ops for built in compile_op(Order(target, op)).built])


def each(work: Callable[[Order], T], orders: list[Order], jobs: int = 1) -> Iterator[tuple[Order, Answer[T]]]:
    """What work gives for each order, in a process per target, `jobs` of them at a time."""
    by_target = [[order for order in orders if order.target == target] for target in TARGETS]

    def one(some: list[Order]) -> list[Answer[T]]:
        return list(apart.each(work, some, PATIENCE))

    with ThreadPoolExecutor(jobs) as pool:
        for some, answers in zip(by_target, pool.map(one, by_target), strict=True):
            yield from zip(some, answers, strict=True)


def gate(ops: list[str], targets: list[str], jobs: int, every: bool = False) -> Found:
    """Compile, count and judge. Tiles and the table of meant.py can only be judged where all ops are here."""
    orders = [Order(target, op, every) for target in targets for op in ops]
    rows, works, alive = [], [], []
    for order, answer in each(compile_op, orders, jobs):
        if answer.result is None:
            rows.append(Row(order.op, order.target, problem=answer.death))
            continue
        works.append(answer.result)
        alive += [order] if order.target == "sm_90" and order.op in {op for op, _ in model.LIMITS} else []
    for target in targets:
        rows += _rows(target, [built for work in works for built in work.built if built.row.target == target])
    problems = [str(row) for row in rows if row.problem]
    if set(ops) == set(OPS):
        problems += meant.never_built({row.kernel for row in rows}, OPS)
        problems += _unreached([work.tiles for work in works]) if every else []
    times: list[model.Time] = []
    for order, modelled in each(model_op, alive):
        times += modelled.result or []
        problems += [f"the model of {order.op}: {modelled.death}"] if modelled.death else []
    problems += [f"{time.op} {time.case}: {time.problem}" for time in times if time.problem]
    return Found(rows, problems, times)


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
    every, targets = "samples and odd sizes too, and tiles that nothing reaches", list(TARGETS)
    parser.add_argument("--op", nargs="+", default=[""], help="only ops with one of these in their name")
    parser.add_argument("--target", nargs="+", choices=targets, default=targets, help="only these")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, len(TARGETS)), help="processes")
    parser.add_argument("--write", nargs="?", const=RESULTS, type=Path, help="write the tables")
    parser.add_argument("--every", action="store_true", help=every)
    chosen = parser.parse_args()
    ops = [op for op in OPS if any(word in op for word in chosen.op)]
    if not ops:
        parser.error(f"no op has {' or '.join(chosen.op)} in its name; there are {', '.join(OPS)}")
    if triton.knobs.runtime.interpret:
        parser.error("TRITON_INTERPRET is set, and the interpreter compiles nothing. Unset it.")
    if chosen.write and (set(ops) != set(OPS) or set(chosen.target) != set(TARGETS)):
        parser.error("--write needs every op and every target.")
    start = time.perf_counter()
    rows, problems, times = gate(ops, chosen.target, chosen.jobs, chosen.every)
    lines, of_times = table.worst(rows), table.of_times(times)
    print(aligned(table.HEADS, lines, table.LEFT))
    if times:
        print("\nModelled times of sm_90, of which nothing is measured:")
        print(aligned(table.TIMES, of_times, table.LEFT))
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
        path_of_times.write_text(table.written(of_times, table.TIMES), encoding="utf-8")
    return 1 if problems or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
