"""Time every kernel on the GPU at hand, beside the least time that its work can take there.

    python -m tools.roofline [--kernel encode ...] [--rows 1e8] [--headline | --rest] [--sweep] [--no-write]

First the roofs are measured: how many bytes the GPU copies per second, and how many operations its matrix
units do on random halves and bytes. Then each case of tools/roof/cases.py: whether a small one of its kind is
right, and its time, by CUDA events, medians, inputs in turns so that the cache holds none of them. `share` is
the floor (tools/roof/floors.py, at the clock that the case ran at) over the median. A row is printed and
appended to bench/results/roofline.csv, or to the folder that OUT names, as soon as it is known; a case that
fails says so, and the others go on. Cases run in another process, and in a new one after a broken GPU.
--headline measures only what has a target, --rest all others. --sweep times the tiles that a launcher can
choose beside the one that it does choose, and writes nothing. --rehearse walks through all of it without a
GPU: kernels compile, and nothing is timed or written.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench import apart
from bench.cells import aligned
from bench.checkout import append, text
from gpuzip.ops import OPS
from tools.roof.cases import Case, Task, bound, cases, launcher, present, tasks, traffic
from tools.roof.floors import Roofs
from tools.roof.machine import Machine, Rehearsal, is_broken
from tools.roof.results import TARGETS, Row, folder, row_of, stamp, verdicts

NAME = "roofline.csv"
#: Seconds after which a case is given up: some hundred times what it takes on a GPU.
PATIENCE = 120.0
_SHOWN = ["kernel", "case", "tile", "answer", "seconds", "floor_seconds", "share", "gb_per_second"]
_SHOWN += ["copy_share", "vectors_per_second", "queries_per_second", "peak_bytes", "how"]
_LEFT = {"kernel", "case", "tile", "answer", "how"}


class Order(NamedTuple):
    """A case by its place in `whole(rows)`. tile: of its launcher, -1 for the one that it chooses."""

    rows: int
    case: int
    roofs: Roofs
    rehearse: bool = False
    tile: int | None = None


Measured = tuple[Row | None, str]
"""A row, or None where there is none, and a note."""


def whole(N: int) -> list[Case | Task]:
    """All that there is to time."""
    return [*present(cases(N)), *tasks(N)]


def kind(case: Case | Task) -> str:
    return case.op if isinstance(case, Case) else case.kind


def is_headline(case: Case | Task) -> bool:
    return (kind(case), case.name) in {(target.kernel, target.case) for target in TARGETS}


@cache
def _machine(rehearse: bool) -> Machine:
    return Rehearsal() if rehearse else Machine()


def measured(order: Order) -> Measured:
    """`measure` in another process: a case that fails has a note, and may leave the GPU broken."""
    try:
        return measure(_machine(order.rehearse), order)
    except Exception as error:
        failed = None, f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if is_broken():
            raise apart.BrokenError(failed) from error
        return failed


def measure(machine: Machine, order: Order) -> Measured:
    """The row of one order, and whether its answer was right; None where the GPU has no room for it."""
    case, roofs = whole(order.rows)[order.case], order.roofs
    if isinstance(case, Task):
        if not machine.fits(case.memory):
            return None, "left out, too large for this GPU"
        fault = case.fault(machine.device)
        answer = f"WRONG {fault}" if fault else "right"
        row = row_of(kind(case), case, machine.time_task(case), roofs, queries=case.queries)
        return row | {"answer": answer}, answer
    moved = traffic(OPS[case.op], bound(OPS[case.op], case.make("meta")))
    if not machine.fits(1.5 * moved):
        return None, "left out, too large for this GPU"
    if order.tile is not None:
        tile = None if order.tile < 0 else tiles(case.op)[order.tile]
        launch = None if tile is None else partial(_launched, launcher(case.op), tile)
        said = "chosen" if tile is None else str(tile)
        return row_of(case.op, case, machine.time(case, launch), roofs) | {"tile": said}, said
    small = whole(machine.few)[order.case]
    assert isinstance(small, Case)
    answer = machine.judged(small)
    return row_of(case.op, case, machine.time(case), roofs, moved=moved) | {"answer": answer}, answer


def _launched(launch: Callable[..., Any], tile: Any, *args: Any) -> Any:
    return launch(*args, tile=tile)


def tiles(op: str) -> list[Any]:
    """The tiles that a launcher can be given: TILES of its module, else what `_tile` can answer."""
    from tools.gate.tiles import answers

    launch = launcher(op)
    if "tile" not in inspect.signature(launch).parameters:
        return []
    kernels = importlib.import_module(OPS[op].kernel.partition(":")[0])
    return list(getattr(kernels, "TILES", None) or answers(kernels._tile))


def _orders(chosen: argparse.Namespace, N: int, roofs: Roofs) -> list[Order]:
    """What is to be timed, what has a target first."""
    table = [(i, case) for i, case in enumerate(whole(N)) if kind(case) in chosen.kernel]
    if chosen.headline or chosen.rest:
        table = [(i, case) for i, case in table if is_headline(case) == chosen.headline]
    table.sort(key=lambda found: not is_headline(found[1]))
    orders = [(Order(N, i, roofs, chosen.rehearse), case) for i, case in table]
    if not chosen.sweep:
        return [order for order, _ in orders]
    counts = [len(tiles(case.op)) if isinstance(case, Case) else 0 for _, case in orders]
    swept = zip(orders, counts, strict=True)
    return [order._replace(tile=i) for (order, _), count in swept if count for i in range(-1, count)]


def run(orders: list[Order], machine: Machine, file: Path | None) -> list[Row]:
    """Time all, print each as it ends, and append its row to a file at once."""
    where, rows = stamp(machine.device), []
    table = whole(orders[0].rows) if orders else []
    for order, answer in zip(orders, apart.each(measured, orders, PATIENCE), strict=True):
        row, note = answer.result or (None, f"FAILED: {answer.death}")
        name = f"{kind(table[order.case])} {table[order.case].name}"
        if row is None:
            print(f"{name}: {note}", flush=True)
            continue
        rows.append(row | where)
        print(f"{name}: {text(row['seconds'])} s, share {row['share']:.2f}, {note}", flush=True)
        if file is not None:
            append(file, rows[-1:])
    return rows


def best_tiles(rows: list[Row]) -> str:
    """For each case of a sweep, the best tile beside the chosen one."""
    by_case: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_case.setdefault((row["kernel"], row["case"]), []).append(row)
    lines = []
    for case, found in by_case.items():
        chosen = next((text(row["seconds"]) for row in found if row["tile"] == "chosen"), "failed")
        best = min(found, key=lambda row: float(row["seconds"]))
        lines.append([*case, chosen, text(best["seconds"]), best["tile"]])
    return aligned(["kernel", "case", "chosen", "best", "tile"], lines, {"kernel", "case", "tile"})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.roofline")
    kinds = sorted({kind(case) for case in whole(10**6)})
    parser.add_argument("--kernel", nargs="+", choices=kinds, default=kinds, help="only these")
    parser.add_argument("--rows", type=float, help="rows of the scans; by default what fits, 1e8 at most")
    parser.add_argument("--headline", action="store_true", help="only what has a target")
    parser.add_argument("--rest", action="store_true", help="only what has none")
    parser.add_argument("--sweep", action="store_true", help="time every tile; writes nothing")
    parser.add_argument("--no-write", action="store_true", help=f"leave {NAME} as it is")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU; times and writes nothing")
    chosen = parser.parse_args()
    if not chosen.rehearse and not torch.cuda.is_available():
        print("tools.roofline measures on an NVIDIA GPU, and torch sees none here. Nothing was measured.")
        return 2
    machine = _machine(chosen.rehearse)
    roofs, name = machine.roofs(), stamp(machine.device)["gpu"]
    products = f"half products {roofs.half / 1e12:.4g} T/s, int8 products {roofs.int8 / 1e12:.4g} T/s"
    busy = f"{roofs.sms} multiprocessors at {roofs.clock / 1e9:.3g} GHz meanwhile"
    print(f"{name}: copies {roofs.copy / 1e12:.3g} TB/s, {products}, {busy}", flush=True)
    orders = _orders(chosen, int(chosen.rows or machine.rows), roofs)
    written = not (chosen.no_write or chosen.sweep or chosen.rehearse)
    rows = run(orders, machine, folder() / NAME if written else None)
    if chosen.sweep:
        print(best_tiles(rows))
    else:
        print(aligned(_SHOWN, [[text(row.get(name)) for name in _SHOWN] for row in rows], _LEFT))
        print("\n".join([f"Targets, on {name}:", *verdicts(rows, name)]))
    if chosen.rehearse:
        print("A rehearsal: nothing was measured.")
    failed = len(rows) < len(orders) or any(str(row["answer"]).startswith("WRONG") for row in rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
