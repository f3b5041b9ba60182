"""What a file says of its quality: asked for when it is read, and kept from rows that were held out."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip.storage import file


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(640, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def codes(x: Tensor) -> gpuzip.Codes:
    return gpuzip.BinaryQuantizer().fit(x).encode(x)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.ezip"


@pytest.fixture
def measured(x: Tensor, path: Path) -> gpuzip.FileInfo:
    return gpuzip.save(x, path, m=8)


def test_a_file_that_is_good_enough_is_read(x: Tensor, path: Path, measured: gpuzip.FileInfo):
    assert measured.quality is not None
    for enough in (measured.quality.row_cosine, 0.1, -1):
        assert torch.equal(gpuzip.load(path, min_cosine=enough), gpuzip.load(path))
        assert len(gpuzip.open(path, min_cosine=enough)) == len(x)


def test_a_worse_file_is_refused_before_its_codes_are_read(
    path: Path, measured: gpuzip.FileInfo, monkeypatch: pytest.MonkeyPatch
):
    def read(_: Tensor) -> str:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(file, "_checksum", read)
    for call in (gpuzip.load, gpuzip.open):
        with pytest.raises(
            gpuzip.QualityError,
            match=r"a\.ezip: the mean cosine of rows must be at least min_cosine=.*; it is 0\.\d+",
        ):
            call(path, min_cosine=0.9999)


def test_a_file_that_was_not_measured_is_refused(codes: gpuzip.Codes, path: Path):
    codes.save(path)
    for call in (gpuzip.load, gpuzip.open):
        with pytest.raises(
            gpuzip.QualityError, match=r"a\.ezip: has no stored quality to compare with min_cosine=-1"
        ):
            call(path, min_cosine=-1)


@pytest.mark.parametrize("least", [2, "0.9", True, math.nan])
def test_a_cosine_is_a_number(path: Path, measured: gpuzip.FileInfo, least: Any):
    with pytest.raises(gpuzip.GpuzipError, match=r"min_cosine must be a number from -1 to 1; got .*"):
        gpuzip.open(path, min_cosine=least)


def test_what_was_held_out_is_in_the_file_and_printed(codes: gpuzip.Codes, path: Path):
    held_out = gpuzip.HeldOut(500, 0.9512345678, 0.001, 10, "cosine", 0.875, 0.99)
    info = gpuzip.Codes(codes.codec.stamped(held_out), codes.data).save(path)
    assert info.held_out == gpuzip.HeldOut(500, 0.951235, 0.001, 10, "cosine", 0.875, 0.99)
    assert gpuzip.open(path).codec.held_out == info.held_out
    said = "Held out: cosine 0.951235, recall@10 0.875, rescored 0.99 on 500 rows"
    assert said in str(info).split("\n")
    bare = codes.save(path)
    assert bare.held_out is None
    assert "Held out" not in str(bare)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        {},
        {"rows": 1, "row_cosine": 1.0},
        {"rows": 1.5, "row_cosine": 1.0, "mse": 0.0},
        {"rows": 1, "row_cosine": 1.0, "mse": 0.0, "surprise": 1},
        {"rows": 1, "row_cosine": "high", "mse": 0.0},
    ],
)
def test_a_measure_that_is_none_is_refused(codes: gpuzip.Codes, wrong: object):
    codec = codes.codec
    with pytest.raises(gpuzip.FormatError, match="held_out: fields must be those of a HeldOut; got"):
        type(codec).restore({**codec.config(), "held_out": wrong}, codec.state())
