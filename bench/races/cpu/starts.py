"""First calls in a new process, with an empty cache of compiled loops and with a full one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.checkout import ROOT
from bench.data import made
from bench.first_call import ROWS as TOURED
from bench.measure import is_quick
from bench.races.cpu.duel import empty
from bench.races.cpu.steps import CODECS
from bench.speeds import Race

_ROWS = 20_000
_FIRST = "nothing compiled"
#: What is on disk, and GPUZIP_LOOPS. The second process compiles what the third one loads.
_STATES = {_FIRST: "1", "nothing compiled, waits for it": "wait", "compiled before": "1"}
_FOLDER = tempfile.TemporaryDirectory()


@dataclass
class Start(Race):
    """arguments: of bench.first_call. CPU time is in the columns of one thread, wall time in the others."""

    arguments: Sequence[str] = ()

    def rows(self) -> Iterator[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as cache:
            for state, loops in _STATES.items():
                cpu, wall = _started(self.arguments, first if state == _FIRST else cache, loops)
                case = self.case | {"setting": f"{self.case['setting']}, {state}"}
                yield empty(self.group, case) | {"one_seconds": cpu, "all_seconds": wall}


def _started(arguments: Sequence[str], cache: str | None = None, loops: str = "1") -> tuple[float, float]:
    caches = {name: cache for name in ("NUMBA_CACHE_DIR", "GPUZIP_CACHE") if cache} | {"GPUZIP_LOOPS": loops}
    command = [sys.executable, "-m", "bench.first_call", *arguments]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | caches, capture_output=True, text=True, check=True
    )
    cpu, wall = json.loads(run.stdout)
    return cpu, wall


def first_search(setting: str) -> Race:
    file, codec = Path(_FOLDER.name, f"{setting}.ezip"), CODECS[setting]
    codec.fit(made(_ROWS)).encode(made(_ROWS)).save(file)
    arguments = ["search", str(file), "hamming" if setting.endswith("384 bits") else "ip"]
    case = {"setting": setting, "rows": _ROWS, "queries": 1, "k": 10}
    return Start("first search", case, partial(_started, arguments), {}, arguments=arguments)


def tour() -> Race:
    """Fitting, encoding, decoding and searching with every codec."""
    case = {"setting": "all codecs", "rows": TOURED}
    return Start("first calls", case, partial(_started, ["tour"]), {}, arguments=["tour"])


RACES = [partial(first_search, setting) for setting in (("PQ48x8",) if is_quick() else CODECS)]
RACES += [] if is_quick() else [partial(tour)]
