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
    said = "Held out: cosine 0.951235, recall@10 0.875, rescored 0.99 by cosine on 500 rows, "
    said += "for queries like the rows"
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


@pytest.mark.parametrize(
    "claim",
    [{"row_cosine": 1e308}, {"row_cosine": -1.1}, {"mse": -1.0}, {"cosine": 2.0}, {"mse": math.inf}],
    ids=str,
)
def test_a_claim_that_no_rows_can_have_is_refused(claim: dict[str, Any]):
    true = {"cosine": 0.9, "row_cosine": 0.9, "mse": 0.1}
    assert gpuzip.Quality.is_json(true)
    assert not gpuzip.Quality.is_json(true | claim)
    if "cosine" not in claim:
        with pytest.raises(gpuzip.FormatError, match="held_out: fields must be"):
            gpuzip.HeldOut.of_json({"rows": 9, "row_cosine": 0.9, "mse": 0.1} | claim)
    for wrong in ({"recall": 1.5}, {"rows": -1}, {"queries": -2}):
        with pytest.raises(gpuzip.FormatError, match="held_out: fields must be"):
            gpuzip.HeldOut.of_json({"rows": 9, "row_cosine": 0.9, "mse": 0.1} | wrong)


class TestRowsOfZerosHaveNoDirection:
    """They are not counted in a mean of cosines, wherever one is taken."""

    @pytest.fixture
    def holes(self, x: Tensor) -> Tensor:
        holes = x.clone()
        holes[::25] = 0
        return holes

    def test_in_quality(self, x: Tensor, holes: Tensor):
        codec = gpuzip.BinaryQuantizer().fit(x)
        directed = (holes != 0).any(1)
        want, got = (codec.encode(rows).quality(rows) for rows in (holes[directed], holes))
        assert want is not None and got is not None
        assert got.row_cosine == pytest.approx(want.row_cosine, rel=1e-12)
        assert got.mse != pytest.approx(want.mse, rel=1e-3)

    @pytest.mark.full
    def test_in_what_compress_promises_and_pareto_lists(self, x: Tensor, holes: Tensor):
        want, got = (gpuzip.compress(rows, min_cosine=0.98) for rows in (x, holes))
        assert got.ratio > 0.9 * want.ratio
        assert got.codec.held_out is not None and got.codec.held_out.row_cosine > 0.98
        best = gpuzip.pareto(holes[:200], k=5)[-1]
        assert best.row_cosine > 0.9999 and best.recall is not None and best.recall > 0.99

    def test_in_drift(self, x: Tensor, holes: Tensor):
        codec = gpuzip.ScalarQuantizer(4).fit(x)
        assert codec.drift(holes, x).verdict == "stable"

    def test_nothing_but_zeros(self):
        zeros = torch.zeros(300, 8)
        codes = gpuzip.HalfQuantizer().fit(zeros).encode(zeros)
        assert codes.quality(zeros) == gpuzip.Quality(1.0, 1.0, 0.0)
        assert gpuzip.compress(zeros, min_cosine=0.99).decode().eq(0).all()
        assert codes.codec.drift(zeros, zeros).ratio == pytest.approx(1.0)
