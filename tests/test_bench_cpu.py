"""The kind cpu: two clocks, targets, rows of other processors, and cases that fail."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch

pytest.importorskip("faiss")
pytest.importorskip("usearch")
pytest.importorskip("numba")

from bench import clocks, cpu, processor, tables
from bench.clocks import Clock, spread, turns
from bench.races import cpu as races
from bench.races.cpu import search, steps
from bench.races.cpu.duel import Duel, empty, judged, words_of
from bench.record import stamped

ROOT = Path(__file__).parents[1]


class Ticks:
    """A clock that calls move forward by their own seconds."""

    def __init__(self):
        self.now, self.called = 0.0, []

    def call(self, name, seconds):
        self.called.append(name)
        self.now += seconds


def test_sides_take_turns_in_both_orders():
    ticks = Ticks()
    calls = {"a": partial(ticks.call, "a", 0.5), "b": partial(ticks.call, "b", 1.5)}
    took = turns(calls, Clock("one", 1, lambda: ticks.now, 0.0))
    assert took == {"a": [0.5] * 25, "b": [1.5] * 25}
    assert ticks.called == ["a", "b", *["a", "b", "b", "a"] * 12, "a", "b"]  # once before, for the repeats


def test_short_calls_are_repeated_and_their_time_is_of_one():
    ticks = Ticks()
    took = turns({"a": partial(ticks.call, "a", 0.001)}, Clock("one", 1, lambda: ticks.now, 0.0))
    assert took["a"] == pytest.approx([0.001] * 25) and len(ticks.called) == 3 + 2 * 25


def test_a_slow_first_call_does_not_tell_the_repeats():
    ticks, seconds = Ticks(), iter([0.005, *[0.001] * 99])
    turns({"a": lambda: ticks.call("a", next(seconds))}, Clock("one", 1, lambda: ticks.now, 0.0))
    assert len(ticks.called) == 3 + 2 * 25


def test_the_ratio_is_taken_in_each_round():
    assert spread([2.0, 3.0, 10.0], [1.0, 3.0, 2.0]) == (1.0, 2.0, 5.0)


def a_row(**more):
    case = {"setting": "PQ48x8", "rows": 1000, "queries": 1, "k": 10, "peer": "IndexPQ"}
    times = {f"{clock}_{side}": 1.0 for clock in ("one", "all") for side in ("seconds", "peer_seconds")}
    ratios = {f"{clock}_{side}": 2.0 for clock in ("one", "all") for side in ("low", "ratio", "high")}
    return empty("search", case) | times | ratios | more


@pytest.mark.parametrize(
    ("more", "ok", "all_ok"),
    [
        ({}, True, True),
        ({"one_ratio": 1.9}, False, True),
        ({"all_ratio": 1.9}, True, False),
        ({"recall": 0.9, "peer_recall": 0.905}, True, True),
        ({"recall": 0.9, "peer_recall": 0.92}, False, False),
        ({"one_ratio": None, "all_ratio": None}, None, None),
    ],
)
def test_a_target_is_of_the_ratio_and_of_recall(more, ok, all_ok):
    row = judged(a_row(**more), 2.0)
    assert (row["ok"], row["all_ok"]) == (ok, all_ok)


def test_a_duel_has_a_row_for_each_peer(monkeypatch):
    monkeypatch.setattr(clocks, "budget", lambda: 0.0)
    x = torch.zeros(1 << 20, dtype=torch.int64)
    duel = Duel(
        "search", {"setting": "a"}, x.sum, {"b": x.sum, "c": x.max}, {"d": {"note": "not timed"}}, {"b": 1e9},
        {"b": (0.5, 0.4)}, [x],
    )  # fmt: skip
    rows = {row["peer"]: row for row in duel.rows()}
    assert list(rows) == ["b", "c", "d"]
    assert all(list(row) == list(empty("", {})) for row in rows.values())
    assert (rows["b"]["ok"], rows["b"]["recall"], rows["c"]["ok"]) == (False, 0.5, None)
    assert rows["b"]["one_low"] <= rows["b"]["one_ratio"] <= rows["b"]["one_high"]
    assert rows["b"]["roof_share"] == rows["c"]["roof_share"] > 0
    assert (
        rows["d"]["one_ratio"] is None and rows["d"]["note"] == "not timed" and rows["d"]["one_seconds"] > 0
    )


def test_bytes_are_read_as_words_and_the_last_few_left_out():
    data = torch.arange(27, dtype=torch.uint8).view(3, 9)
    (words,) = words_of(data)
    assert words.dtype == torch.int64 and words.tolist() == data.view(-1)[:24].view(torch.int64).tolist()


def text(**more):
    row = stamped(a_row(**more) | {"case": "search", "features": "avx2", "limit": ""})
    kept = ("cpu", "limit", "date", "commit", "case")
    return row | {name: value for name, value in more.items() if name in kept}


def test_a_run_replaces_its_own_rows_alone():
    """Cases are replaced with all of their peers."""
    other, limited = text(cpu="other"), text(limit="avx2")
    old = [other, text(case="gone"), text(peer="a"), text(peer="b"), limited]
    new = [text(peer="c"), text(case="more")]
    assert cpu.merged(old, new, whole=True) == [other, new[0], limited, new[1]]
    assert cpu.merged(old, new, whole=False) == [other, old[1], new[0], limited, new[1]]


def test_a_case_that_fails_is_a_row_that_says_why(monkeypatch):
    def broken(setting, n):
        raise AssertionError("neighbours differ")

    monkeypatch.setattr(races, "RACES", [partial(broken, "int8", 7)])
    monkeypatch.setattr(cpu, "features", lambda: "avx2")
    ((row,),) = cpu.measured([])
    assert row["setting"] == "broken int8, 7" and row["note"] == "failed: AssertionError: neighbours differ"
    assert row["ok"] == "False" and list(cpu.measured(["elsewhere"])) == []


def test_the_table_has_a_part_for_each_processor_and_limit():
    rows = [
        text(cpu="A", at_least=2.0, ok=True, all_ok=True),
        text(cpu="A", at_least=2.5, ok=False, recall=0.5, peer_recall=0.25, peer="other"),
        text(cpu="A", limit="avx2", ok=True, all_ok=False),
        text(cpu="B", one_ratio=None, all_ratio=None, note="not timed: about 20 s a call"),
    ]
    parts = tables.made_of("cpu", rows)
    titles = [part for part in parts if not part[0].startswith("|")]
    assert titles == [
        ["**A: avx2**", "", "1 of 2 targets are met."],
        ["**A: avx2, limited to avx2**", "", "1 of 1 targets are met."],
        ["**B: avx2**", "", "0 of 0 targets are met."],
    ]
    first, second = parts[1][2:]
    assert first.startswith(
        "| PQ48x8, 1,000 rows, Q=1, k=10 | IndexPQ | 1.00 s | 1.00 s | 2.0x (2.0x to 2.0x)"
    )
    assert " | 2x pass | " in first and " | 2.5x FAIL | 0.500 / 0.250 | " in second
    assert "pass (FAIL by 2 threads)" in parts[3][2] and "not timed: about 20 s a call" in parts[5][2]
    assert len({line.count(" | ") for part in parts if part[0].startswith("|") for line in part}) == 1


def test_a_table_without_rows_says_so(monkeypatch):
    monkeypatch.setattr(tables, "read", lambda name: [])
    assert tables.made("cpu") == ["Not measured yet."]


def test_a_table_of_two_processors_says_what_each_was_measured_on(monkeypatch):
    rows = [text(cpu="A", date="2026-01-01", commit="aa"), text(cpu="B", date="2026-02-02", commit="bb")]
    monkeypatch.setattr(tables, "read", lambda name: rows)
    below = [line for line in tables.made("cpu") if line.startswith("Measured")]
    assert [re.sub(r",.*commit", "", line) for line in below] == [
        "Measured 2026-01-01 on A aa.",
        "Measured 2026-02-02 on B bb.",
    ]


def test_the_limit_is_that_of_the_tests():
    lines = re.findall(r"^ +export (.*)", (ROOT / ".ci" / "lowered").read_text(), re.MULTILINE)[:2]
    tested = dict(word.split("=", 1) for line in lines for word in line.split())
    assert tested.items() <= processor.LIMITS["avx2"].items()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("avx2", "this processor has avx2 alone"),
        ("neon", "this processor has no avx2"),
        ("avx2 avx512bw", ""),
    ],
)
def test_a_limit_that_shows_nothing_says_why(monkeypatch, found, reason):
    monkeypatch.setattr(processor, "features", lambda: found)
    assert (processor.why_no_limit("avx2") or "").startswith(reason)
    assert bool(processor.why_no_limit("avx2")) == bool(reason)


def test_every_case_has_a_name_of_its_own():
    names = [(make.func.__name__, *map(str, make.args)) for make in races.RACES]
    assert len(names) == len(set(names))
    kinds = {name[1] for name in names if name[0] == "search"}
    sizes = {int(name[2]) for name in names if name[:2] == ("search", "RQ24x8")}
    assert sizes and max(sizes) <= search.KINDS["RQ24x8"].rows
    assert {"PQ48x8", "PQ96x4", "384 bits", "1024 bits", "int8", "RaBitQ, 1 bit", "RaBitQ, 4 bits"} <= kinds


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:(Product|Residual)Quantizer.fit:UserWarning")
@pytest.mark.parametrize("setting", search.KINDS)
def test_every_search_finds_what_its_peers_find(setting, monkeypatch):
    """On few rows, without times: search_race compares the neighbours."""
    monkeypatch.setattr(search, "SIZES", (3000,))
    for kept in (search._rows, search._all_codes, search._bench, search._nearest, search._recalls):
        kept.cache_clear()
    monkeypatch.setattr(clocks, "budget", lambda: 0.0)
    race = search.search(setting, 3000, 4, 10)
    assert set(race.at_least) <= set(race.peers)
    assert race.peers or setting == "Lloyd-Max, 4 bits"


@pytest.mark.full
@pytest.mark.parametrize("setting", [name for name in steps.CODECS if name != "PQ48x8"])
def test_every_step_does_the_same_work_as_its_peer(setting, monkeypatch):
    monkeypatch.setattr(steps, "_ROWS", 700)
    monkeypatch.setattr(steps, "_STORED", 800)
    for kept in (steps._made, steps._coded):
        kept.cache_clear()
    for make in (case for case in steps.RACES if case.args[-1] == setting):
        race = make()
        assert race.peers and race.at_least == dict.fromkeys(race.peers, 1.0)
        race.ours()
        for call in race.peers.values():
            call()
