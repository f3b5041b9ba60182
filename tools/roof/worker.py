"""A process that times cases one after another, so that one that breaks the GPU takes no other with it.

An illegal access leaves a CUDA context in which nothing runs any more: the process ends, and the cases that
are left go to a new one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from tools.roof.floors import Roofs

#: Seconds after which a case is given up: some hundred times what it takes on a GPU.
PATIENCE = 120.0

Order = dict[str, Any]


def results(orders: list[Order], roofs: Roofs, module: str, patience: float = PATIENCE) -> Iterator[Any]:
    """(order, row or None, note) of every order as it ends, from as many processes as that takes.

    module: what `python -m` runs with `--worker`; it reads orders and calls `serve`.
    """
    left = list(orders)
    while left:
        for answer in _one_process(left, roofs, module, patience):
            yield left.pop(0), answer.get("row"), answer["note"]


def _one_process(orders: list[Order], roofs: Roofs, module: str, patience: float) -> Iterator[dict[str, Any]]:
    """The answers to some orders, the last of which may be how the process died."""
    asked = json.dumps({"orders": orders, "roofs": asdict(roofs)})
    command = [sys.executable, "-m", module, "--worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(asked)
        process.stdin.close()
        try:
            for _ in orders:
                watch = threading.Timer(patience, process.kill)
                watch.start()
                line = process.stdout.readline()
                watch.cancel()
                if not line:
                    yield {"note": f"FAILED: its process ended with {process.wait()}"}
                    return
                answer = json.loads(line)
                yield answer
                if answer["last"]:
                    return
        finally:
            process.kill()


def serve(measure: Callable[[Order, Roofs], tuple[Any, str]], is_broken: Callable[[], bool]) -> None:
    """Answer the orders that come on stdin, a line each; stop after one that leaves the GPU broken.

    What the work itself prints goes to stderr.
    """
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    asked = json.load(sys.stdin)
    for order in asked["orders"]:
        try:
            row, note = measure(order, Roofs(**asked["roofs"]))
        except Exception as error:
            row, note = None, f"FAILED: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        broken = row is None and is_broken()
        print(json.dumps({"row": row, "note": note, "last": broken}), file=answers, flush=True)
        if broken:
            return
