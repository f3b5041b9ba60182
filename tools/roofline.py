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
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gpuzip.ops import OPS
from tools.columns import aligned
from tools.roof import worker
from tools.roof.answers import judged
from tools.roof.cases import Case, Task, bound, cases, present, tasks, traffic
from tools.roof.floors import Roofs
from tools.roof.machine import Gpu, Machine, Rehearsal
from tools.roof.results import TARGETS, Row, append, folder, row_of, stamp, text, verdicts

NAME = "roofline.csv"
_SHOWN = ["kernel", "case", "tile", "answer", "seconds", "floor_seconds", "share", "gb_per_second"]
_SHOWN += ["copy_share", "vectors_per_second", "queries_per_second", "peak_bytes", "how"]
_LEFT = {"kernel", "case", "tile", "answer", "how"}


def whole(N: int) -> list[Case | Task]:
    """All that there is to time."""
    return [*present(cases(N)), *tasks(N)]


def kind(case: Case | Task) -> str:
    return case.op if isinstance(case, Case) else case.kind


def is_headline(case: Case | Task) -> bool:
    return (kind(case), case.name) in {(target.kernel, target.case) for target in TARGETS}


def measure(machine: Machine, order: worker.Order, roofs: Roofs) -> tuple[Row | None, str]:
    """The row of one order, and whether its answer was right; None where the GPU has no room for it."""
    case = whole(order["rows"])[order["case"]]
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
    if "tile" in order:
        return _with_tile(machine, case, order["tile"], roofs)
    small = whole(machine.few)[order["case"]]
    assert isinstance(small, Case)
    answer = judged(small, machine)
    return row_of(case.op, case, machine.time(case), roofs, moved=moved) | {"answer": answer}, answer


def _with_tile(machine: Machine, case: Case, index: int, roofs: Roofs) -> tuple[Row, str]:
    """The row of a case with one tile of its launcher, -1 for the one that it chooses."""
    launch, every = tiles(case.op)
    if index < 0:
        return row_of(case.op, case, machine.time(case), roofs) | {"tile": "chosen"}, "chosen"
    tile = every[index]
    row = row_of(case.op, case, machine.time(case, partial(_launched, launch, tile)), roofs)
    return row | {"tile": str(tile)}, str(tile)


def _launched(launch: Callable[..., Any], tile: Any, *args: Any) -> Any:
    return launch(*args, tile=tile)


def tiles(op: str) -> tuple[Callable[..., Any], list[Any]]:
    """The launcher, and the tiles of its module: TILES where it has them, else what `_tile` can answer."""
    from tools.gate.tiles import answers

    module, _, launcher = OPS[op].kernel.partition(":")
    kernels = importlib.import_module(module)
    launch = getattr(kernels, launcher)
    if "tile" not in inspect.signature(launch).parameters:
        return launch, []
    return launch, list(getattr(kernels, "TILES", None) or answers(kernels._tile))


def _orders(chosen: argparse.Namespace, N: int) -> list[worker.Order]:
    """What is to be timed, what has a target first."""
    table = list(enumerate(whole(N)))
    table = [(i, case) for i, case in table if kind(case) in chosen.kernel]
    if chosen.headline or chosen.rest:
        table = [(i, case) for i, case in table if is_headline(case) == chosen.headline]
    table.sort(key=lambda found: not is_headline(found[1]))
    orders = [{"rows": N, "case": i, "rehearse": chosen.rehearse} for i, _ in table]
    if not chosen.sweep:
        return orders
    found = []
    for order, (_, case) in zip(orders, table, strict=True):
        count = len(tiles(case.op)[1]) if isinstance(case, Case) else 0
        found += [order | {"tile": tile} for tile in range(-1, count)] if count else []
    return found


def show(rows: list[Row]) -> str:
    return aligned(_SHOWN, [[text(row.get(name)) for name in _SHOWN] for row in rows], _LEFT)


def _serve() -> None:
    """A worker: cases come on stdin, rows go to stdout."""
    machines: dict[bool, Machine] = {}

    def one(order: worker.Order, roofs: Roofs) -> tuple[Row | None, str]:
        rehearse = order["rehearse"]
        machine = machines.setdefault(rehearse, Rehearsal() if rehearse else Gpu())
        return measure(machine, order, roofs)

    worker.serve(one, _is_broken)


def _is_broken() -> bool:
    if not torch.cuda.is_available():
        return False
    try:
        torch.zeros(1, device="cuda").item()
    except RuntimeError:
        return True
    return False


def run(orders: list[worker.Order], machine: Machine, roofs: Roofs, file: Path | None) -> list[Row]:
    """Time all, print each as it ends, and append its row to a file at once."""
    where = stamp(machine.device)
    table, rows = whole(orders[0]["rows"]) if orders else [], []
    for order, row, note in worker.results(orders, roofs, "tools.roofline"):
        case = table[order["case"]]
        if row is None:
            print(f"{kind(case)} {case.name}: {note}", flush=True)
            continue
        rows.append(row | where)
        took = f"{text(row['seconds'])} s, share {row['share']:.2f}"
        print(f"{kind(case)} {case.name}: {took}, {note}", flush=True)
        if file is not None:
            append(file, rows[-1:])
    return rows


def best_tiles(rows: list[Row]) -> str:
    """For each case of a sweep, the best tile beside the chosen one."""
    by_case: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_case.setdefault((row["kernel"], row["case"]), []).append(row)
    lines = []
    for (kernel, case), found in by_case.items():
        chosen = next((row for row in found if row["tile"] == "chosen"), None)
        best = min(found, key=lambda row: float(row["seconds"]))
        least = text(chosen["seconds"]) if chosen else "failed"
        lines.append([kernel, case, least, text(best["seconds"]), best["tile"]])
    return aligned(["kernel", "case", "chosen", "best", "tile"], lines, {"kernel", "case", "tile"})


def main() -> int:
    if "--worker" in sys.argv:
        _serve()
        return 0
    parser = argparse.ArgumentParser(prog="python -m tools.roofline")
    kinds = sorted({case.op for case in cases(10**6)} | {task.kind for task in tasks(10**6)})
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
    machine: Machine = Rehearsal() if chosen.rehearse else Gpu()
    roofs = machine.roofs()
    name = stamp(machine.device)["gpu"]
    products = f"half products {roofs.half / 1e12:.4g} T/s, int8 products {roofs.int8 / 1e12:.4g} T/s"
    busy = f"{roofs.sms} multiprocessors at {roofs.clock / 1e9:.3g} GHz meanwhile"
    print(f"{name}: copies {roofs.copy / 1e12:.3g} TB/s, {products}, {busy}", flush=True)
    orders = _orders(chosen, int(chosen.rows or machine.rows))
    written = not (chosen.no_write or chosen.sweep or chosen.rehearse)
    rows = run(orders, machine, roofs, folder() / NAME if written else None)
    if chosen.sweep:
        print(best_tiles(rows))
    else:
        print(show(rows))
        print("\n".join([f"Targets, on {name}:", *verdicts(rows, name)]))
    if chosen.rehearse:
        print("A rehearsal: nothing was measured.")
    failed = len(rows) < len(orders) or any(str(row["answer"]).startswith("WRONG") for row in rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
