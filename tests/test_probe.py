"""Paths are chosen by time, once, and none changes an answer."""

import pytest
import torch

from gpuzip._core import byte_products, probe
from gpuzip.ops import OPS, pack_bits, scalar_scan
from gpuzip.ops._dispatch import use_loops


class Clock:
    """Time that only goes by when a path runs."""

    def __init__(self):
        self.now = 0.0
        self.ran = []

    def __call__(self):
        return self.now

    def path(self, name, *seconds):
        took = list(seconds)

        def run():
            self.ran.append(name)
            self.now += took.pop(0) if len(took) > 1 else took[0]

        return run


def test_the_quickest_path_by_its_best_round():
    clock = Clock()
    paths = {"steady": clock.path("steady", 5, 2), "noisy": clock.path("noisy", 9, 9, 1, 9)}
    assert probe.paths_by_time(paths, clock) == ["steady", "noisy"]  # far behind when it counted
    clock = Clock()
    paths = {"steady": clock.path("steady", 5, 2), "noisy": clock.path("noisy", 9, 3, 1, 9)}
    assert probe.paths_by_time(paths, clock) == ["noisy", "steady"]


def test_what_is_far_behind_is_timed_once():
    clock = Clock()
    probe.paths_by_time({"quick": clock.path("quick", 1), "slow": clock.path("slow", 100)}, clock)
    assert clock.ran.count("slow") == 2 and clock.ran.count("quick") > 3


def test_a_first_call_may_compile():
    clock = Clock()
    assert probe.paths_by_time({"a": clock.path("a", 2), "b": clock.path("b", 99, 1)}, clock) == ["b", "a"]


def test_a_path_is_chosen_once(monkeypatch):
    monkeypatch.setattr(probe, "_chosen", {})
    clock = Clock()
    paths = {"a": clock.path("a", 2), "b": clock.path("b", 1)}
    first = probe.fastest("work", paths)
    count = len(clock.ran)
    assert probe.fastest("work", paths) == first and len(clock.ran) == count
    assert probe.fastest("other", {"only": clock.path("only", 1)}) == "only" and len(clock.ran) == count


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("path", ["floats", "bytes", "tiles"])
@pytest.mark.parametrize(
    ("Q", "N", "D", "nbits"), [(5, 131, 64, 8), (7, 197, 63, 4), (66, 130, 1100, 8), (9, 67, 1, 8)]
)
def test_every_path_gives_the_same_answer(monkeypatch, loops, path, Q, N, D, nbits):
    if path == "bytes" and not byte_products.bytes_are_exact():
        pytest.skip("no exact product of bytes here")
    if path == "tiles" and not loops:
        pytest.skip("tiles are loops")
    monkeypatch.setattr(probe, "fastest", lambda work, paths: path if path in paths else "floats")
    monkeypatch.setattr(byte_products, "fastest", probe.fastest)
    g = torch.Generator().manual_seed(D)
    codes = pack_bits(torch.randint(0, 1 << nbits, (N, D), generator=g).byte(), nbits)
    queries, unit = torch.randint(-128, 128, (Q, D), generator=g).to(torch.int8), torch.rand(Q, generator=g)
    with use_loops(loops):
        got = scalar_scan(codes, queries, unit, nbits=nbits, group=8)
    want = OPS["scalar_scan"].reference(codes, queries, unit, None, None, None, None, nbits, 8)
    assert torch.equal(got, want)
