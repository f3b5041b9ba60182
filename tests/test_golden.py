"""Files of every format that was released: read forever, and those of the newest written to the byte."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

import gpuzip
from gpuzip.storage import file

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["bits1", "bits4", "bits5", "bits8", "bits12", "pad", "wide", "empty"]  # only ever grows
OLD = [(1, name) for name in NAMES]
NEW = [(2, name) for name in [*NAMES, "row", "blocks", "planes"]]  # only ever grows


def load_make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


make = load_make()


def golden(format: int, name: str, ending: str = "ezip") -> Path:
    return GOLDEN / ("" if format == 1 else f"format{format}") / f"{name}.{ending}"


def expected(format: int, name: str) -> dict:
    return dict(json.loads(golden(format, name, "json").read_text()))


@pytest.fixture
def as_then(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes stamp the version that wrote the golden file, and have blocks of its size."""
    name = request.getfixturevalue("name")
    monkeypatch.setattr(file, "__version__", gpuzip.info(golden(2, name)).library)
    monkeypatch.setattr("gpuzip.storage.blocks.BLOCK_BYTES", make.CASES[name].block_bytes)


@pytest.mark.parametrize(("format", "name"), OLD + NEW)
def test_a_golden_file_decodes_to_what_it_always_did(format: int, name: str):
    want, path = expected(format, name), golden(format, name)
    rows = gpuzip.load(path)
    assert rows.tolist() == gpuzip.open(path).decode().tolist() == want["rows"]
    assert rows.shape == (want["n"], want.get("d", 8))
    assert rows.dtype == getattr(torch, want["dtype"])


@pytest.mark.parametrize(("format", "name"), OLD + NEW)
def test_a_golden_file_holds_the_codes_it_always_did(format: int, name: str):
    want, codes = expected(format, name), gpuzip.open(golden(format, name))
    assert codes.data[:].tolist() == want["packed"]
    info = gpuzip.info(golden(format, name))
    assert (info.format, info.n) == (format, want["n"])
    assert info.codec == ("rabitq" if name == "planes" else "pq")
    fields = {key: info.config[key] for key in ("m", "nbits", "d", "seed") if key in want}
    assert fields == {key: want[key] for key in fields}


@pytest.mark.parametrize(("format", "name"), NEW)
def test_a_golden_file_holds_the_checksums_of_its_blocks(format: int, name: str):
    want, table = expected(format, name)["crc32"], load_file(golden(format, name))["crc32"].numpy()
    assert table.view("<u4")[:, :, 0].tolist() == want
    per_block = {"blocks": 4, "planes": 4}.get(name, 1 << 18)
    assert len(want) == -(-expected(format, name)["n"] // per_block)


@pytest.mark.parametrize(("format", "name"), [one for one in OLD + NEW if one[1] not in ("empty", "planes")])
def test_a_golden_row_encodes_to_its_own_code(format: int, name: str):
    codes = gpuzip.open(golden(format, name))
    again = codes.codec.encode(codes.decode())
    assert torch.equal(again.decode(codes.dtype), codes.decode())


@pytest.mark.parametrize(("format", "name"), OLD + NEW)
@pytest.mark.usefixtures("as_then")
def test_a_golden_file_that_is_read_and_written_is_the_newest_to_the_byte(
    format: int, name: str, tmp_path: Path
):
    gpuzip.open(golden(format, name)).save(tmp_path / "again", make.CASES[name].source())
    assert (tmp_path / "again").read_bytes() == golden(2, name).read_bytes()


@pytest.mark.parametrize(("format", "name"), NEW)
@pytest.mark.usefixtures("as_then")
def test_a_golden_file_made_from_its_formula_is_the_same_to_the_byte(format: int, name: str, tmp_path: Path):
    case = make.CASES[name]
    case.codes().save(tmp_path / "again", case.source())
    assert (tmp_path / "again").read_bytes() == golden(format, name).read_bytes()


@pytest.mark.parametrize("format", [1, 2])
def test_the_stamped_quality_of_half_a_row_is_known(format: int):
    for name in ("bits4", "bits8", "pad"):
        quality, rows = gpuzip.info(golden(format, name)).quality, expected(format, name)["rows"]
        assert quality is not None
        values = [value for row in rows for value in row]
        assert quality.cosine == quality.row_cosine == 1
        assert quality.mse == pytest.approx(sum(v * v / 4 for v in values) / len(values), rel=1e-5)


def test_every_golden_file_is_tested():
    of_files = {path for path in GOLDEN.rglob("*.ezip") if "datasets" not in path.parts}
    assert of_files == {golden(*one) for one in OLD + NEW}
    assert list(make.CASES_1) == NAMES
    assert list(make.CASES) == [name for _, name in NEW]


def test_golden_files_are_never_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(make, "FOLDER", tmp_path)
    make.main()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert len(before) == 2 * len(NEW)
    with pytest.raises(SystemExit, match=r"bits1\.ezip exists"):
        make.main()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
