"""Where gpuzip stands beside every peer on this processor: search, look-ups, coding, files and first calls.

    python -m bench.cpu [word ...] [--limit avx2]

With words only cases run that have one in their name or setting. A row goes into bench/results/cpu.csv in
the place of the older one of its case, processor and limit; rows of other processors stay. --limit uses no
more of the processor than named. A target that is missed is a result, and the exit status stays 0.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from bench import tables
from bench.checkout import Row, put, read
from bench.measure import is_quick
from bench.processor import LIMITS, features, limit, limit_peers, why_no_limit
from bench.record import stamped


def measured(words: list[str]) -> Iterator[list[Row]]:
    """The rows of each case. One that fails is a row that says why."""
    from bench.races.cpu import RACES
    from bench.races.cpu.duel import empty

    for make in RACES:
        name = f"{make.func.__name__} {', '.join(map(str, make.args))}"
        if words and not any(word in name for word in words):
            continue
        start = time.perf_counter()
        try:
            rows: list[dict[str, Any]] = list(make().rows())
        except Exception as error:  # the other cases are worth having
            about = f"failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            rows = [empty(make.func.__name__, {"setting": name}) | {"ok": False, "note": about}]
        print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        yield [stamped(row | {"case": name, "features": features(), "limit": limit()}) for row in rows]


def merged(old: list[Row], new: list[Row], *, whole: bool) -> list[Row]:
    """The rows of new cases in the places of old ones. whole: no others of their processor and limit stay."""
    cases: dict[tuple[str, ...], list[Row]] = {}
    for row in old:
        cases.setdefault(_key(row), []).append(row)
    found = {key: [row for row in new if _key(row) == key] for key in map(_key, new)}
    measured = {key[:-1] for key in found}
    kept = {key: rows for key, rows in cases.items() if not whole or key in found or key[:-1] not in measured}
    return [row for rows in (kept | found).values() for row in rows]


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in ("cpu", "features", "limit", "case"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cpu", description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", metavar="word", help="only cases with one in their name")
    parser.add_argument("--limit", choices=LIMITS, help="use no more of the processor")
    asked = parser.parse_args()
    if asked.limit and limit() != asked.limit:
        if reason := why_no_limit(asked.limit):
            print(f"cpu, limited to {asked.limit}: {reason}")
            return 0
        command = [sys.executable, "-m", "bench.cpu", *asked.words, "--limit", asked.limit]
        return subprocess.run(command, env=os.environ | LIMITS[asked.limit], check=False).returncode
    limit_peers()
    rows: list[Row] = []
    for some in measured(asked.words):
        rows += some
        if not is_quick():
            put("cpu", merged(read("cpu"), some, whole=False))
    if rows and not is_quick() and not asked.words:
        put("cpu", merged(read("cpu"), rows, whole=True))
    print(tables.screen("cpu", rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
