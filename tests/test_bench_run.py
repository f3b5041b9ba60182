"""What a quick run leaves out, and that a race writes the columns that its results have."""

import subprocess

import numpy as np
import pytest
import torch

pytest.importorskip("faiss")
pytest.importorskip("usearch")

from bench import run, speeds, tables
from bench.checkout import read
from bench.measure import in_turns


def race(q: int = 4) -> speeds.Race:
    values, ids = torch.tensor([[2.0, 1.0]]).repeat(q, 1), torch.tensor([[0, 1]]).repeat(q, 1)

    def peer(count: int) -> tuple[np.ndarray, np.ndarray]:
        return values[:count].numpy(), ids[:count].numpy()

    case = {"rows": 2, "m": 1, "nbits": 8, "queries": q}
    return speeds.search_race("search", case, lambda: (values, ids), {"peer": peer})


def test_a_race_writes_the_columns_of_its_results():
    (row,) = race().rows()
    known = set(read("pq")[0]) - {"date", "commit", "cpu", "cores", "threads", "torch", "faiss", "python"}
    assert set(row) == known
    assert row["ratio"] == row["peer_seconds"] / row["seconds"] and row["note"] is None


def test_a_peer_that_takes_too_long_is_compared_and_not_timed(monkeypatch):
    monkeypatch.setattr(speeds, "seconds", lambda call: 1e6)
    (row,) = race(32).rows()
    assert row["note"] == "not timed: about 2000000 s a call" and row["ratio"] is None
    text = {name: "" if value is None else str(value) for name, value in row.items()}
    assert "not timed: about 2000000 s a call |  |  | " in tables.made_of("speed", [text])[0][2]


def test_a_peer_with_other_neighbours_fails():
    def wrong(count: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((count, 2), 9.0, np.float32), np.tile([5, 6], (count, 1))

    ours = race()
    with pytest.raises(AssertionError, match="neighbours differ"):
        speeds.search_race("search", ours.case, ours.ours, {"peer": wrong})


def test_sides_are_timed_in_turns():
    called = []
    took = in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, rounds=3)
    assert called == ["a", "b"] * 4  # once more for the memory
    assert took["a"].rounds == 3 and 0 <= took["a"].least <= took["a"].median


def test_a_quick_run_leaves_out_what_does_not_fit(monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, **how: ran.append(command))
    assert run.run("pq", run.KINDS["pq"].seconds - 1.0)
    assert not ran and "pq is left out: it takes about" in capsys.readouterr().out


def test_kinds_that_need_no_more_packages_fit_into_ten_minutes():
    """All but the last, which is long and is left out."""
    *kinds, last = run.KINDS.items()
    assert last[0] == "cpu"
    assert sum(kind.seconds for _, kind in kinds if not kind.needs) <= run.QUICK_SECONDS


def test_a_limit_is_for_the_kind_that_keeps_it(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run", "pq", "--limit", "avx2"])
    with pytest.raises(SystemExit):
        run.main()
    assert "--limit is for cpu alone" in capsys.readouterr().err
