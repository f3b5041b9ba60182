"""Roads are chosen by time, once, and none changes an answer."""

import pytest
import torch

from gpuzip._core import byte_products, probe
from gpuzip.ops import OPS, pack_bits, scalar_scan
from gpuzip.ops._dispatch import use_loops


class Clock:
    """Time that only goes by when a road runs."""

    def __init__(self):
        self.now = 0.0
        self.ran = []

    def __call__(self):
        return self.now

    def road(self, name, *seconds):
        took = list(seconds)

        def run():
            self.ran.append(name)
            self.now += took.pop(0) if len(took) > 1 else took[0]

        return run


def test_the_quickest_road_by_its_best_round():
    clock = Clock()
    roads = {"steady": clock.road("steady", 5, 2), "noisy": clock.road("noisy", 9, 9, 1, 9)}
    assert probe.roads_by_time(roads, clock) == ["steady", "noisy"]  # far behind when it counted
    clock = Clock()
    roads = {"steady": clock.road("steady", 5, 2), "noisy": clock.road("noisy", 9, 3, 1, 9)}
    assert probe.roads_by_time(roads, clock) == ["noisy", "steady"]


def test_what_is_far_behind_is_timed_once():
    clock = Clock()
    probe.roads_by_time({"quick": clock.road("quick", 1), "slow": clock.road("slow", 100)}, clock)
    assert clock.ran.count("slow") == 2 and clock.ran.count("quick") > 3


def test_a_first_call_may_compile():
    clock = Clock()
    assert probe.roads_by_time({"a": clock.road("a", 2), "b": clock.road("b", 99, 1)}, clock) == ["b", "a"]


def test_a_road_is_chosen_once(monkeypatch):
    monkeypatch.setattr(probe, "_chosen", {})
    clock = Clock()
    roads = {"a": clock.road("a", 2), "b": clock.road("b", 1)}
    first = probe.fastest("work", roads)
    count = len(clock.ran)
    assert probe.fastest("work", roads) == first and len(clock.ran) == count
    assert probe.fastest("other", {"only": clock.road("only", 1)}) == "only" and len(clock.ran) == count


@pytest.mark.parametrize("loops", [False, True])
@pytest.mark.parametrize("road", ["floats", "bytes", "tiles"])
@pytest.mark.parametrize(
    ("Q", "N", "D", "nbits"), [(5, 131, 64, 8), (7, 197, 63, 4), (66, 130, 1100, 8), (9, 67, 1, 8)]
)
def test_every_road_gives_the_same_answer(monkeypatch, loops, road, Q, N, D, nbits):
    if road == "bytes" and not byte_products.bytes_are_exact():
        pytest.skip("no exact product of bytes here")
    if road == "tiles" and not loops:
        pytest.skip("tiles are loops")
    monkeypatch.setattr(probe, "fastest", lambda work, roads: road if road in roads else "floats")
    monkeypatch.setattr(byte_products, "fastest", probe.fastest)
    g = torch.Generator().manual_seed(D)
    codes = pack_bits(torch.randint(0, 1 << nbits, (N, D), generator=g).byte(), nbits)
    queries, unit = torch.randint(-128, 128, (Q, D), generator=g).to(torch.int8), torch.rand(Q, generator=g)
    with use_loops(loops):
        got = scalar_scan(codes, queries, unit, nbits=nbits, group=8)
    want = OPS["scalar_scan"].reference(codes, queries, unit, None, None, None, None, nbits, 8)
    assert torch.equal(got, want)
