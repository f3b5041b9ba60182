"""Disks that fill while a source is compressed: the old destination stays, and the next run goes on."""

import errno
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import compress_file
from gpuzip.large.job import is_unfinished
from tests.large.test_compress_file import bytes_of

X = np.random.default_rng(2).standard_normal((3000, 16)).astype(np.float32)
HOW: dict[str, Any] = {"codec": "SQ8", "sample_rows": 500, "shard_rows": 500}


@pytest.mark.parametrize("name", ["x.ezip", "x"])
def test_a_full_disk_leaves_the_old_destination_and_a_run_that_can_go_on(tmp_path: Path, name: str):
    np.save(tmp_path / "x.npy", X)
    compress_file(tmp_path / "x.npy", tmp_path / f"whole{name}", **HOW)
    target = tmp_path / name
    compress_file(X[:700], target, "SQ4")
    old, work = bytes_of(target), target.with_name(f"{name}.compressing")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    faults: list[OSError] = []
    while True:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1200 * len(faults), hard))
        try:
            done = compress_file(tmp_path / "x.npy", target, overwrite=True, **HOW)
            break
        except OSError as error:
            faults.append(error)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert bytes_of(target) == old
        if (work / "manifest.json").exists():
            assert is_unfinished(work)
            gpuzip.Dataset.open(work).verify()
    assert (
        len(faults) > 10
    )  # in the record of the run, in shards, in manifests; of a file also in its own bytes
    assert all(fault.errno == errno.EFBIG and str(tmp_path) in str(fault) for fault in faults)
    assert done.n == 3000 and not work.exists()
    if target.suffix:
        assert bytes_of(target) == bytes_of(tmp_path / f"whole{name}")
    else:  # its generations are counted on from those of the old one
        assert torch.equal(
            gpuzip.Dataset.open(target).decode(), gpuzip.Dataset.open(tmp_path / f"whole{name}").decode()
        )
