"""Hugging Face's datasets: a column of codes that keeps its codec through their operations and files."""

import pytest
import torch

import gpuzip
from gpuzip import DtypeError, GpuzipError

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def datasets():
    """The package, which the full set alone installs."""
    import datasets

    return datasets


@pytest.fixture(scope="module")
def x(real):
    return real[:300, :24].half()


@pytest.fixture(scope="module")
def codes(x):
    return gpuzip.ScalarQuantizer(bits=4).fit(x).encode(x)


@pytest.fixture
def dataset(datasets, codes, monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    texts = datasets.Dataset.from_dict({"id": range(300), "text": [f"text {i}" for i in range(300)]})
    return gpuzip.to_datasets(codes, texts)


def same(dataset, codes):
    back = gpuzip.from_datasets(dataset)
    return (
        torch.equal(back.data[:], codes.data[:])
        and back.codec.same_as(codes.codec)
        and back.dtype == codes.dtype
    )


@pytest.mark.parametrize(
    "codec", [gpuzip.BinaryQuantizer(), gpuzip.HalfQuantizer(), gpuzip.RaBitQuantizer(4)], ids=lambda c: c.id
)
def test_codes_come_back_from_disk(datasets, x, codec, tmp_path):
    codes = codec.fit(x).encode(x)
    gpuzip.to_datasets(codes, column="e").save_to_disk(tmp_path / "x")
    assert same(datasets.load_from_disk(tmp_path / "x"), codes)


def test_operations_keep_codes_and_codec(datasets, dataset, codes):
    assert dataset.column_names == ["id", "text", "codes"]
    assert dataset[7]["codes"] == codes.data[7].numpy().tobytes()
    assert len(repr(dataset.features["codes"])) < 100
    order = torch.arange(300).flip(0)
    assert same(dataset.select(range(20, 60)), codes[20:60])
    assert same(dataset.select(order.tolist()), codes[order])
    assert same(dataset.filter(lambda row: row["id"] % 3 == 1), codes[torch.arange(1, 300, 3)])
    assert same(dataset.map(lambda row: {"length": len(row["text"])}), codes)
    assert same(datasets.concatenate_datasets([dataset, dataset]), gpuzip.cat([codes, codes]))


def test_parquet_files_keep_codes_and_codec(datasets, dataset, codes, tmp_path):
    dataset.to_parquet(tmp_path / "x.parquet")
    read = datasets.Dataset.from_parquet(str(tmp_path / "x.parquet"), cache_dir=str(tmp_path / "cache"))
    assert same(read, codes)


def test_what_does_not_fit_is_refused(datasets, dataset, codes, x):
    with pytest.raises(GpuzipError, match="dataset must have 9 rows, one per code; got 300"):
        gpuzip.to_datasets(codes[:9], dataset)
    with pytest.raises(GpuzipError, match="column must be a new name; the dataset already has 'codes'"):
        gpuzip.to_datasets(codes, dataset)
    with pytest.raises(DtypeError, match=r"dataset must be a datasets.Dataset; got Table"):
        gpuzip.from_datasets(gpuzip.to_arrow(codes))
    plain = datasets.Dataset.from_dict({"e": [row.numpy().tobytes() for row in codes.data]})
    with pytest.raises(GpuzipError, match=r"column must be one of \['e'\], of which 0 have a codec"):
        gpuzip.from_datasets(plain)
    assert torch.equal(gpuzip.from_datasets(plain, column="e", codec=codes.codec).data, codes.data)
