"""What the benchmarks share: ours in both lanes, timed in turns with its peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.measure import Call, in_turns
from bench.peers import same_threads
from gpuzip.ops import use_loops

Compare = Callable[..., None]

#: The name of gpuzip's own plain torch among the peers.
PLAIN = "plain torch"


@pytest.fixture
def compare(benchmark: Any) -> Compare:
    """Times ours, with numba and in plain torch, beside peers.

    `case` says what ran, `about` has more to record of a peer.
    """
    threads = same_threads()

    def run(ours: Call, peers: dict[str, Call], about: dict[str, dict[str, Any]], **case: Any) -> None:
        def plain() -> Any:
            with use_loops(False):
                return ours()

        with use_loops(True):
            found = in_turns(benchmark, ours, {PLAIN: plain} | peers)
        for name, extra in about.items():
            found.setdefault(name, {}).update(extra)
        benchmark.extra_info.update(case=case, threads=threads, plain=found.pop(PLAIN), peers=found)

    return run
