"""Files that this format was released with: read forever, and written again to the byte."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import gpuzip
from gpuzip.storage import file

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["bits1", "bits4", "bits5", "bits8", "bits12", "pad", "wide", "empty"]  # only ever grows


def load_make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


make = load_make()


def expected(name: str) -> dict:
    return dict(json.loads((GOLDEN / f"{name}.json").read_text()))


@pytest.fixture
def as_then(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes stamp the version that wrote the golden file."""
    name = request.getfixturevalue("name")
    monkeypatch.setattr(file, "__version__", gpuzip.info(GOLDEN / f"{name}.ezip").library)


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_decodes_to_what_it_always_did(name: str):
    want = expected(name)
    rows = gpuzip.load(GOLDEN / f"{name}.ezip")
    assert rows.tolist() == want["rows"]
    assert rows.shape == (want["n"], want["d"])
    assert rows.dtype == getattr(torch, want["dtype"])


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_holds_the_codes_it_always_did(name: str):
    want, codes = expected(name), gpuzip.open(GOLDEN / f"{name}.ezip")
    assert codes.data.tolist() == want["packed"]
    info = gpuzip.info(GOLDEN / f"{name}.ezip")
    fields = {key: info.config[key] for key in ("m", "nbits", "d", "seed")}
    assert fields == {key: want[key] for key in fields}
    assert (info.format, info.codec, info.n) == (1, "pq", want["n"])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "empty"])
def test_a_golden_row_encodes_to_its_own_code(name: str):
    codes = gpuzip.open(GOLDEN / f"{name}.ezip")
    again = codes.codec.encode(codes.decode())
    assert torch.equal(again.decode(codes.dtype), codes.decode())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("as_then")
def test_a_golden_file_that_is_read_and_written_is_the_same_to_the_byte(name: str, tmp_path: Path):
    gpuzip.open(GOLDEN / f"{name}.ezip").save(tmp_path / "again", make.CASES[name].source())
    assert (tmp_path / "again").read_bytes() == (GOLDEN / f"{name}.ezip").read_bytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("as_then")
def test_a_golden_file_made_from_its_formula_is_the_same_to_the_byte(name: str, tmp_path: Path):
    case = make.CASES[name]
    case.codes().save(tmp_path / "again", case.source())
    assert (tmp_path / "again").read_bytes() == (GOLDEN / f"{name}.ezip").read_bytes()


def test_the_stamped_quality_of_half_a_row_is_known():
    for name in ("bits4", "bits8", "pad"):
        quality, rows = gpuzip.info(GOLDEN / f"{name}.ezip").quality, expected(name)["rows"]
        assert quality is not None
        values = [value for row in rows for value in row]
        assert quality.cosine == quality.row_cosine == 1
        assert quality.mse == pytest.approx(sum(v * v / 4 for v in values) / len(values), rel=1e-5)


def test_every_golden_file_is_tested():
    assert sorted(p.name for p in GOLDEN.glob("*.ezip")) == sorted(f"{name}.ezip" for name in NAMES)
    assert list(make.CASES) == NAMES


def test_golden_files_are_never_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(make, "FOLDER", tmp_path)
    make.main()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert len(before) == 2 * len(NAMES)
    with pytest.raises(SystemExit, match=r"bits1\.ezip exists"):
        make.main()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
