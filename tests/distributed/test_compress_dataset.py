"""Parquet becomes a Dataset by Ray's workers: each row once, with the bytes of one process, whoever dies."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.distributed import ray_data
from tests.distributed.engines import run, written
from tests.distributed.shards import rows_of

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
    assert rows == 8000
    run(MODULE, *arguments, "nobody", 4000, 1024)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").glob("codes-*")}
    kept = set(before.items()) & set(after.items())
    assert len(kept) >= rows // 4000
    check_rows(tmp_path / "data", want)


class Schema(NamedTuple):
    names: list
    types: list


@pytest.mark.parametrize(
    ("kind", "found"), [("int64", "int64"), ("uint32", "int64"), ("large_string", "string")]
)
def test_ids_are_numbers_or_strings(kind, found):
    schema = Schema(["id", "embedding"], [kind, "list<float>"])
    assert ray_data._kind_of(schema, "id", "embedding", ()) == found


def test_other_ids_and_missing_columns_are_refused():
    schema = Schema(["id", "embedding"], ["double", "list<float>"])
    with pytest.raises(gpuzip.GpuzipError, match="'id' holds double"):
        ray_data._kind_of(schema, "id", "embedding", ())
    with pytest.raises(gpuzip.GpuzipError, match=r"must be of \['id', 'embedding'\]; got \['text'\]"):
        ray_data._kind_of(schema, "id", "embedding", ["text"])


@pytest.mark.parametrize("kind", [np.int64, object])
def test_rows_that_are_done_are_found_by_their_ids(kind):
    done = np.sort(np.array([str(i) if kind is object else i for i in range(0, 60, 3)], kind))
    asked = np.array([str(i) if kind is object else i for i in (59, 3, 4, 57, 0, 99)], kind)
    assert ray_data._are_in(done, asked).tolist() == [False, True, False, True, True, False]


def test_a_dataset_of_another_codec_is_refused(tmp_path):
    one, other = (gpuzip.ScalarQuantizer(bits=bits).fit(rows_of(20, 1)) for bits in (8, 4))
    assert len(ray_data._opened(tmp_path, one, "int64")) == 0
    assert len(ray_data._opened(tmp_path, one, "int64")) == 0
    with pytest.raises(gpuzip.GpuzipError, match="codec must be that of the dataset"):
        ray_data._opened(tmp_path, other, "int64")
