"""Time every kernel on the GPU at hand, beside the least time that its work can take there.

    python -m bench.roofline [--kernel encode ...] [--rows 1e8] [--sweep] [--no-write]

First the roofs are measured: how many bytes the GPU copies a second, how many operations its matrix units do
on random halves and bytes, and the clock that it holds meanwhile. Then each case of bench/roof/cases.py: CUDA
events, medians, inputs in turns so that the cache holds none of them. `share` is the floor
(bench/roof/floors.py) over the median. Rows are appended to bench/results/roofline.csv as they come. Without
CUDA nothing is measured.
--sweep times the tiles that a launcher can choose instead, and writes nothing.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bench.columns import aligned
from bench.markdown import RESULTS
from bench.roof.cases import Case, Task, bound, cases, present, tasks, traffic
from bench.roof.floors import Roofs
from bench.roof.results import Row, append, stamp, text, verdicts
from gpuzip.ops import OPS

FILE = RESULTS / "roofline.csv"
_SHOWN = ["kernel", "case", "tile", "seconds", "floor_seconds", "share", "gb_per_second", "copy_share"]
_SHOWN += ["vectors_per_second", "queries_per_second", "peak_bytes", "how"]
_LEFT = {"kernel", "case", "tile", "how"}


def default_rows(memory: float) -> int:
    """Rows of the scans on a GPU with this many bytes: what 48-byte codes, scores and a copy need."""
    return 10**8 if memory >= 3e10 else 10**7 if memory >= 6e9 else 10**6


def measure_case(case: Case, roofs: Roofs) -> Row | None:
    """A row, or None where the GPU has no room for the case."""
    from bench.roof.timing import time_op

    op = OPS[case.op]
    moved = traffic(op, bound(op, case.make("meta")))
    if not _fits(1.5 * moved):
        return None
    seconds = time_op(op.call, bound(op, case.make("cuda")))
    return _row(case.op, case.name, seconds, case.floor(roofs), case.vectors, roofs, moved=moved)


def measure_task(task: Task, roofs: Roofs) -> Row | None:
    from bench.roof.timing import time_task

    if not _fits(task.memory):
        return None
    seconds = time_task(task.make("cuda"))
    return _row(task.kind, task.name, seconds, task.floor(roofs), task.vectors, roofs, queries=task.queries)


def _row(
    kernel: str,
    case: str,
    time: Any,
    floor: float,
    vectors: int,
    roofs: Roofs,
    *,
    moved: int | None = None,
    queries: int | None = None,
    tile: str = "",
) -> Row:
    rate = None if moved is None else moved / time.median
    return {
        "kernel": kernel,
        "case": case,
        "tile": tile,
        "seconds": time.median,
        "least_seconds": time.least,
        "floor_seconds": floor,
        "share": floor / time.median,
        "gb_per_second": None if rate is None else rate / 1e9,
        "copy_share": None if rate is None else rate / roofs.copy,
        "vectors_per_second": vectors / time.median,
        "queries_per_second": None if queries is None else queries / time.median,
        "peak_bytes": time.peak_bytes,
        "how": time.how,
        "roof_copy": roofs.copy,
        "roof_half": roofs.half,
        "roof_int8": roofs.int8,
        "clock": roofs.clock,
    }


def _fits(count: float) -> bool:
    torch.cuda.empty_cache()
    return count < torch.cuda.mem_get_info()[0]


def sweep(case: Case, roofs: Roofs) -> Iterator[Row | str]:
    """A row for each tile that the launcher can choose for some sizes, or why it does not run here."""
    from bench.roof.timing import time_op

    op = OPS[case.op]
    module, _, name = op.kernel.partition(":")
    launch, tiles = _tiles(module, name)
    arguments = bound(op, case.make("cuda"))
    want = op.call(*arguments)
    for tile in tiles:

        def call(*args: Any, tile: Any = tile) -> Any:
            return launch(*args, tile=tile)

        try:
            same = _equal(call(*arguments), want)
            seconds = time_op(call, arguments)
        except Exception as error:  # this tile is for other sizes; the others are still worth a time
            yield f"{case.op} {case.name} {tile}: {type(error).__name__}"
            continue
        label = f"{tile}{'' if same else ' OTHER ANSWER'}"
        yield _row(case.op, case.name, seconds, case.floor(roofs), case.vectors, roofs, tile=label)


def _tiles(module: str, launcher: str) -> tuple[Callable[..., Any], list[Any]]:
    """The launcher, and the tiles of its module: TILES where it has them, else what `_tile` can answer."""
    from bench.gate.tiles import answers

    kernels = importlib.import_module(module)
    launch = getattr(kernels, launcher)
    if "tile" not in inspect.signature(launch).parameters:
        return launch, []
    return launch, list(getattr(kernels, "TILES", None) or answers(kernels._tile))


def _equal(got: Any, want: Any) -> bool:
    pairs = zip(*((r,) if isinstance(r, Tensor) else r for r in (got, want)), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def show(rows: list[Row]) -> str:
    return aligned(_SHOWN, [[text(row[name]) for name in _SHOWN] for row in rows], _LEFT)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.roofline")
    kinds = sorted({case.op for case in cases(10**6)} | {task.kind for task in tasks(10**6)})
    parser.add_argument("--kernel", nargs="+", choices=kinds, default=kinds, help="only these")
    parser.add_argument("--rows", type=float, help="rows of the scans; by default what fits, 1e8 at most")
    parser.add_argument("--sweep", action="store_true", help="time every tile; writes nothing")
    parser.add_argument("--no-write", action="store_true", help=f"leave {FILE.name} as it is")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        print("bench.roofline measures on an NVIDIA GPU, and torch sees none here. Nothing was measured.")
        return 2
    from bench.roof.timing import measure_roofs

    N = int(chosen.rows or default_rows(torch.cuda.mem_get_info()[0]))
    roofs = measure_roofs()
    print(
        f"{torch.cuda.get_device_name()}: copies {roofs.copy / 1e12:.3g} TB/s, half products "
        f"{roofs.half / 1e12:.4g} T/s, int8 products {roofs.int8 / 1e12:.4g} T/s, "
        f"{roofs.sms} multiprocessors at {roofs.clock / 1e9:.3g} GHz"
    )
    table = [case for case in present(cases(N)) if case.op in chosen.kernel]
    if chosen.sweep:
        _print_sweep(table, roofs)
        return 0
    where = stamp()
    rows: list[Row] = []
    whole: list[Case | Task] = [*table, *(task for task in tasks(N) if task.kind in chosen.kernel)]
    for case in whole:
        row = measure_case(case, roofs) if isinstance(case, Case) else measure_task(case, roofs)
        if row is None:
            print(f"left out, too large for this GPU: {case.name}", flush=True)
            continue
        rows.append(row | where)
        print(f"{row['kernel']} {row['case']}: {text(row['seconds'])} s, {row['share']:.0%}", flush=True)
        if not chosen.no_write:
            append(FILE, rows[-1:])
    print(show(rows))
    print("\n".join(["What an H200 has to reach:", *verdicts(rows)]))
    return 0


def _print_sweep(table: list[Case], roofs: Roofs) -> None:
    for case in table:
        found = list(sweep(case, roofs))
        rows = [row for row in found if not isinstance(row, str)]
        if rows:
            print(show(sorted(rows, key=lambda row: float(row["seconds"]))), flush=True)
        for line in found:
            if isinstance(line, str):
                print(line)


if __name__ == "__main__":
    sys.exit(main())
