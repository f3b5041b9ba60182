"""Parquet becomes a Dataset by Ray's workers: each row once, with the bytes of one process, whoever dies."""

from pathlib import Path
from typing import Any

import pytest
import torch

import gpuzip
from tests.distributed.engines import run, written

MODULE = "bench.ray_compress"


def check_rows(folder: Path, want: gpuzip.Codes) -> gpuzip.Dataset:
    data = gpuzip.Dataset.open(folder)
    order = torch.as_tensor(data.ids).argsort()
    assert torch.equal(data.ids[order], torch.arange(len(want)))
    codes: Any = [shard.codes.data[:] for shard in data._view.shards]
    assert torch.equal(torch.cat(codes)[order], want.data[:])
    data.verify()
    return data


@pytest.mark.full
def test_a_worker_that_is_killed_loses_and_doubles_no_row(tmp_path):
    pytest.importorskip("ray")
    _, codec, want = written(tmp_path, 60_000, 32, 12)
    said = run(MODULE, tmp_path / "rows", codec, tmp_path / "data", "worker", 4000, 64)
    assert "killed" in said
    check_rows(tmp_path / "data", want)


@pytest.mark.full
def test_a_call_goes_on_where_an_earlier_one_was_killed(tmp_path):
    pytest.importorskip("ray")
    _, codec, want = written(tmp_path, 60_000, 32, 12)
    arguments = tmp_path / "rows", codec, tmp_path / "data"
    run(MODULE, *arguments, "driver", 4000, 1024, status=-9)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").glob("codes-*")}
    rows = len(gpuzip.Dataset.open(tmp_path / "data"))
    assert 4000 <= rows < 60_000
    run(MODULE, *arguments, "nobody", 4000, 1024)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").glob("codes-*")}
    kept = set(before.items()) & set(after.items())
    assert len(kept) >= rows // 4000
    check_rows(tmp_path / "data", want)
