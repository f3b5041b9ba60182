"""compress_file: what comes of a source, whatever its form, and what is refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import compress_file

X = np.random.default_rng(1).standard_normal((6000, 16)).astype(np.float32)
SMALL: dict[str, Any] = {"sample_rows": 2000, "shard_rows": 2000}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch):
    """Small blocks of checksums, so that there are several shards."""
    monkeypatch.setattr("gpuzip.storage.blocks.BLOCK_BYTES", 4000)


def bytes_of(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_every_form_of_a_source_gives_the_same_bytes(tmp_path: Path):
    np.save(tmp_path / "x.npy", X)
    np.savez_compressed(tmp_path / "x.npz", X)
    forms: dict[str, Any] = {
        "npy": tmp_path / "x.npy",
        "npz": str(tmp_path / "x.npz"),
        "list": [tmp_path / "x.npy"],
        "matrix": X,
        "tensor": torch.from_numpy(X),
        "chunks": [X[:7], X[7:5000], X[5000:]],
        "once": (X[start : start + 901] for start in range(0, 6000, 901)),
        "anew": lambda: iter([X]),
    }
    for name, src in forms.items():
        done = compress_file(src, tmp_path / f"{name}.ezip", "PQ4x4", **SMALL)
        assert (done.n, done.d, done.resumed, done.nbytes) == (6000, 16, 0, done.path.stat().st_size)
        assert bytes_of(done.path) == bytes_of(tmp_path / "npy.ezip"), name
    assert not list(tmp_path.glob("*.compressing"))


def test_a_file_is_that_of_save_and_a_dataset_has_the_same_rows(tmp_path: Path):
    codec = gpuzip.ProductQuantizer(4, 4).fit(X)
    compress_file(X, tmp_path / "x.ezip", codec, **SMALL)
    codec.encode(X).save(tmp_path / "plain.ezip")
    assert bytes_of(tmp_path / "x.ezip") == bytes_of(tmp_path / "plain.ezip")
    done = compress_file(X, tmp_path / "x", codec, **SMALL)
    data = gpuzip.Dataset.open(tmp_path / "x")
    data.verify()
    assert data.info().shards == 3 and done.nbytes == data.nbytes
    assert torch.equal(data.decode(), codec.encode(X).decode())
    assert data.ids.tolist() == list(range(6000))
    data.append(X[:3])
    assert len(data) == 6003


FULL = pytest.mark.full


@pytest.mark.parametrize(
    "spec", ["PQ4x4", *(pytest.param(spec, marks=FULL) for spec in ("HR,RaBitQ3", "RQ3x6", "SQ8", "SQfp16"))]
)
def test_bytes_do_not_depend_on_how_much_is_read_at_a_time(
    tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch
):
    codec = gpuzip.from_spec(spec).fit(X)
    found = set()
    for chunk in (3, 60):
        monkeypatch.setattr("gpuzip.large.plan.Memory.chunk", lambda memory, d, chunk=chunk: chunk * 100)
        target = tmp_path / f"{chunk}.ezip"
        compress_file((X[a : a + 77] for a in range(0, 6000, 77)), target, codec, **SMALL)
        found.add(target.read_bytes())
    out = io.BytesIO()
    codec.encode(X).save(out)
    assert found == {out.getvalue()}


def test_a_codec_is_fitted_on_a_sample_and_measured_on_the_rest_of_it(tmp_path: Path):
    done = compress_file(X, tmp_path / "x.ezip", gpuzip.ScalarQuantizer(8), sample_rows=1000, seed=3)
    assert done.held_out is not None and done.held_out.rows == 200 and done.held_out.row_cosine > 0.999
    assert gpuzip.info(done.path).held_out == gpuzip.HeldOut.of_json(done.held_out.to_json())
    assert "held out: cosine" in str(done) and "rows/s" in str(done) and "float32" in done._repr_html_()
    assert sum(done.seconds.values()) > 0 and done.rows_per_second > 0
    other = compress_file(X, tmp_path / "y.ezip", gpuzip.ScalarQuantizer(8), sample_rows=1000, seed=4)
    assert bytes_of(other.path) != bytes_of(done.path)


def test_few_rows_are_all_fitted_on(tmp_path: Path):
    done = compress_file(X[:50], tmp_path / "x.ezip", "SQ8")
    assert done.held_out is None and done.n == 50


@pytest.mark.parametrize("dtype", ["bfloat16", *(pytest.param(f"float{n}", marks=FULL) for n in (16, 64))])
def test_rows_keep_their_dtype(tmp_path: Path, dtype: str):
    x = torch.from_numpy(X).to(getattr(torch, dtype))
    for src in (x, iter([x[:100], x[100:]])):
        done = compress_file(src, tmp_path / "x.ezip", "SQ8", sample_rows=500, overwrite=True)
        assert done.dtype == x.dtype and gpuzip.open(done.path)[:3].decode().dtype == x.dtype


def test_a_codec_is_chosen_for_all_rows_by_a_sample(tmp_path: Path):
    done = compress_file(X, tmp_path / "x.ezip", max_bytes=30_000, sample_rows=1000)
    assert done.nbytes <= 30_000 and done.n == 6000
    done = compress_file(X[:, :8], tmp_path / "y", min_cosine=0.9, sample_rows=500)
    assert done.why is not None and "min_cosine=0.9" in done.why
    assert done.held_out is not None and done.held_out.row_cosine > 0.9


def test_without_a_codec_and_goals_codes_are_those_of_compress(tmp_path: Path):
    done = compress_file(X, tmp_path / "x.ezip")
    assert repr(done.codec) == repr(gpuzip.compress(X).codec)


def test_progress_is_told_the_rows_of_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    told: list[tuple[int, int]] = []
    compress_file(X, tmp_path / "x.ezip", "SQ8", progress=lambda *both: told.append(both), **SMALL)
    assert told == [(2000 * i, 6000) for i in range(1, 4)]
    told.clear()
    codec = gpuzip.ScalarQuantizer(8).fit(X)
    compress_file(iter([X]), tmp_path / "y.ezip", codec, progress=lambda *both: told.append(both), **SMALL)
    assert told == [(2000 * i, 0) for i in range(1, 4)]
    compress_file(X, tmp_path / "z.ezip", codec, progress=True, **SMALL)
    assert "6,000/6,000" in capsys.readouterr().err


def test_what_is_there_stays_unless_it_may_be_replaced(tmp_path: Path):
    for name in ("x.ezip", "x"):
        compress_file(X, tmp_path / name, "SQ8", **SMALL)
        before = bytes_of(tmp_path / name)
        with pytest.raises(gpuzip.GpuzipError, match="must be new; it is there"):
            compress_file(X[:10], tmp_path / name, "SQ8", **SMALL)
        assert bytes_of(tmp_path / name) == before
    reader = gpuzip.Dataset.open(tmp_path / "x")
    for name in ("x.ezip", "x"):
        compress_file(X[:100], tmp_path / name, "SQ4", overwrite=True, **SMALL)
    assert len(gpuzip.open(tmp_path / "x.ezip")) == 100
    assert len(reader) == 6000 and torch.equal(reader.rows([5999])[0], reader.decode()[5999])
    assert len(reader.refresh()) == 100 and not list(tmp_path.glob("*.compressing"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(gpuzip.GpuzipError, match=r"must be new or empty; it holds notes\.txt"):
        compress_file(X, tmp_path / "mine", "SQ8")
    assert bytes_of(tmp_path / "mine") == {"notes.txt": b"mine"}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match=r"end in \.ezip to be a file"):
        compress_file(X, tmp_path / "file", "SQ8")
    (tmp_path / "folder.ezip").mkdir()
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        compress_file(X, tmp_path / "folder.ezip", "SQ8")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"codec": "SQ8", "min_cosine": 0.9}, "min_cosine must not be given with a codec"),
        ({"codec": gpuzip.TransformCoder(lossless=True)}, "An archive is made of rows in memory"),
        ({"for_": "storage", "ratio": 4}, "got 'storage'. Archives are made of rows in memory"),
        ({"codec": 5}, "codec must be a codec of search"),
        ({"codec": "SQ8", "max_memory": "1MB"}, "max_memory must be at least"),
        ({"codec": "SQ8", "max_gpu_memory": "1GB"}, "must come with a GPU"),
        ({"codec": "SQ8", "max_memory": "300MB", "sample_rows": 10**7}, "sample_rows must be at most"),
        ({"codec": "SQ8", "sample_rows": 5}, "sample_rows must be a whole number of at least 100"),
        ({"codec": "SQ8", "column": "x"}, "must come with files; got rows"),
        ({"codec": "SQ8", "column": "x", "key": "y"}, "one of column and key must be given"),
        ({"codec": gpuzip.ScalarQuantizer().fit(X[:, :5])}, "must have 5 columns, as the codec"),
    ],
)
def test_arguments_that_cannot_be_met_are_refused(tmp_path: Path, arguments: dict[str, Any], why: str):
    with pytest.raises(gpuzip.GpuzipError, match=why):
        compress_file(X, tmp_path / "x.ezip", **arguments)
    assert not (tmp_path / "x.ezip").exists()


@pytest.mark.parametrize("src", [X[:0], X[0], X[0, 0], X.astype(int), [X[:0]]])
def test_what_holds_no_rows_of_floats_is_refused(tmp_path: Path, src: Any):
    with pytest.raises(gpuzip.GpuzipError, match=r"at least one row|must be"):
        compress_file(src, tmp_path / "x.ezip", "SQ8")
    assert not list(tmp_path.iterdir())


def test_rows_that_cannot_be_encoded_are_named(tmp_path: Path):
    x = X.copy()
    x[4321, 3] = np.nan
    with pytest.raises(gpuzip.GpuzipError, match=r"rows 4000 to 5999 of the source: .*row 321 holds NaN"):
        compress_file(x, tmp_path / "x.ezip", gpuzip.ScalarQuantizer().fit(X), **SMALL)
    assert not (tmp_path / "x.ezip").exists()


def test_codes_of_another_codec_are_not_appended(tmp_path: Path):
    codec, other = gpuzip.ScalarQuantizer().fit(X), gpuzip.ScalarQuantizer().fit(2 * X)
    data = gpuzip.Dataset.create(tmp_path, codec)
    data.append(codec.encode(X))
    assert torch.equal(data.decode(), codec.encode(X).decode())
    with pytest.raises(gpuzip.GpuzipError, match="codes must be of the codec of the dataset"):
        data.append(other.encode(X))
