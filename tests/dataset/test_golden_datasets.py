"""Datasets of every format that was released: read forever, and written on."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.dataset.manifest import OURS

GOLDEN = Path(__file__).parents[1] / "golden" / "datasets"
NAMES = ["named", "numbered"]  # only ever grows


def expected(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_dataset_holds_what_it_always_did(name: str):
    want, data = expected(name), gpuzip.Dataset.open(GOLDEN / name)
    assert np.asarray(data.ids).tolist() == want["ids"]
    assert data.decode().tolist() == want["rows"]
    assert data.rows(want["ids"][::-1]).tolist() == want["rows"][::-1]
    found = data.search(torch.tensor(want["rows"]), 1, "l2")
    assert found.values.count_nonzero() == 0
    if want["text"]:
        pc = pytest.importorskip("pyarrow.compute")
        data.verify()
        assert data.columns()["text"].to_pylist() == want["text"]
        after = data.search(torch.zeros(4), 20, filter=pc.field("year") > 2010).ids.tolist()
        assert sorted(after) == ["ä11", "ä13", "ä14"]
    else:
        data.verify()


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_dataset_is_written_on(tmp_path: Path, name: str):
    want = expected(name)
    shutil.copytree(GOLDEN / name, tmp_path / name)
    data = gpuzip.Dataset.open(tmp_path / name)
    data.remove(want["ids"][:2])
    data.compact(removed=0)
    again = gpuzip.Dataset.open(tmp_path / name)
    assert np.asarray(again.ids).tolist() == want["ids"][2:]
    assert again.decode().tolist() == want["rows"][2:]
    if name == "numbered":
        assert data.append(torch.zeros(1, 4)).tolist() == [9]


def test_a_golden_dataset_has_no_other_files():
    for name in NAMES:
        files = set(os.listdir(GOLDEN / name)) - {"manifest.json"}
        assert all(OURS.fullmatch(file) for file in files)
        named = {member.name for member in gpuzip.Dataset.open(GOLDEN / name)._view.manifest.members}
        assert {file for file in files if not file.startswith("generation")} == named
    assert {path.name for path in GOLDEN.iterdir()} == {*NAMES, *(f"{name}.json" for name in NAMES)}
