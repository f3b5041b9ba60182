"""What the benchmark of outcomes calls the best of the grid, and what it says of unseen rows."""

import pytest
import torch

pytest.importorskip("faiss")
pytest.importorskip("rich")

from bench import outcomes, tables
from gpuzip import from_spec, recall
from gpuzip.choose import by_outcome
from tests.test_outcome import few_families


@pytest.fixture
def judge(real, monkeypatch):
    monkeypatch.setattr(outcomes, "families", few_families)
    monkeypatch.setattr(by_outcome, "families", few_families)
    return outcomes.Judge(real[:3500, :48].contiguous(), 1500)


def test_unseen_rows_are_neither_given_nor_few(judge):
    assert judge.unseen.shape == (2000, 48)
    assert judge.given.shape == (1500, 48)
    assert int((torch.cdist(judge.unseen[:200], judge.given) == 0).sum()) == 0


@pytest.mark.full
def test_the_best_is_the_smallest_of_the_grid_that_reaches_the_target(judge):
    row = outcomes.measured("some", judge, {"min_recall": 0.8})
    enough = []
    for family in few_families(1500, 48).values():
        for candidate in family:
            codes = from_spec(candidate.spec).fit(judge.given).encode(judge.given)
            ids = codes.search(judge.unseen, 10)[1]
            truth = torch.nn.functional.normalize(judge.given) @ torch.nn.functional.normalize(judge.unseen).T
            if recall(ids, truth.T.topk(10).indices) >= 0.8:
                enough.append((codes.nbytes, candidate.spec))
    assert (row["best_nbytes"], row["best"]) == min(enough)
    assert row["extra"] == row["nbytes"] / row["best_nbytes"] - 1
    assert row["ok"] == (row["unseen"] >= 0.8 and row["extra"] <= 0.1)
    assert row["unseen"] >= 0.8


@pytest.mark.parametrize("target", [{"min_recall": 0.95, "rescore": True}, {"min_cosine": 0.98}])
def test_each_target_is_measured_as_it_was_asked_for(judge, target):
    row = outcomes.measured("some", judge, target)
    codes = from_spec(row["codec"]).fit(judge.given).encode(judge.given)
    assert row["unseen"] == pytest.approx(judge.quality(codes, target), abs=0.01)
    if "rescore" in target:
        assert judge.quality(codes, {"min_recall": 0.95}) < row["unseen"]
        assert row["target"] == "min_recall rescored"


def test_a_row_of_the_table(judge, monkeypatch):
    row = outcomes.measured("some rows", judge, {"min_cosine": 0.98})
    stamp = dict.fromkeys(("date", "cpu", "threads", "torch", "faiss", "python", "commit"), "x")
    monkeypatch.setattr(tables, "read", lambda name: [{k: str(v) for k, v in (row | stamp).items()}])
    heads, _, line, *_ = tables.made("outcomes")
    assert heads.startswith("| 1,500 rows | asked for | chosen |")
    assert line.startswith(f"| some rows, 48 columns | min_cosine 0.98 | `{row['codec']}` | 0.")
