"""The model of many machines: by hand where it is simple, and beside the simulation elsewhere."""

import pytest

from bench import scale
from bench.checkout import read
from bench.scale import ASSUMED, SHARD, Machine


def machine(encode: float = 1e6, scan: float = 1e-9, merge: float = 0.0) -> Machine:
    return Machine("cpu", encode, scan, merge, 1e10, 1.0)


def test_by_hand(monkeypatch):
    monkeypatch.setattr(scale, "SLOWER", 0.0)
    assert scale.encode_seconds(machine(), 10**9, 10) == pytest.approx(153.6)  # 1,536 bytes at 1 GB/s
    assert scale.encode_seconds(machine(encode=1e5), 10**9, 10) == pytest.approx(1000)
    assert scale.scan_seconds(machine(), 10**9, 4) == pytest.approx(64)
    step = ASSUMED["latency"] + 8 * 256 * 10 / ASSUMED["network"]
    assert scale.exchange_seconds(machine(), 5) == pytest.approx(4 * step)
    done, exchange = scale.simulated_search(machine(), 10**9, 5)
    assert (done, exchange) == pytest.approx((51.2 + 4 * step, 4 * step))
    first = SHARD * 1536 / ASSUMED["storage"]  # nothing is encoded before it is read
    assert scale.simulated_encode(machine(encode=1e5), 8 * SHARD, 4) == pytest.approx(first + 2 * SHARD / 1e5)
    assert scale.simulated_encode(machine(encode=1e9), 8 * SHARD, 4) == pytest.approx(2 * first + SHARD / 1e9)


def test_more_machines_than_pay_take_longer():
    one = machine(scan=1e-12, merge=1e-9)
    best = scale.most_machines(one, 10**9)
    took = {
        count: scale.scan_seconds(one, 10**9, count) + scale.exchange_seconds(one, count)
        for count in (best // 2, best, 2 * best)
    }
    assert took[best] < min(took[best // 2], took[2 * best])


@pytest.mark.parametrize("count", [1, 3, 64])
@pytest.mark.parametrize("encode", [1e5, 1e7])
@pytest.mark.parametrize("scan", [1e-9, 1e-12])
def test_the_simulation_is_near(count, encode, scan):
    row = scale.row_of(machine(encode, scan, 1e-9), 10**9, count)
    assert row["ok"], row["off"]


@pytest.mark.full
def test_the_results_are_of_the_measured_rates():
    if not read("distributed"):
        pytest.skip("no ranks were measured")
    rows, kept = list(scale.measure(None)), read("scale")
    assert [row["ok"] for row in rows] == [True] * 8
    assert [float(row["encode_seconds"]) for row in kept] == pytest.approx(
        [row["encode_seconds"] for row in rows], rel=1e-5
    )
