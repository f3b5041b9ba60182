"""Dictionaries: what small archives share, found by hash, and refused where it is missing or damaged."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip.archive.archive import Archive
from gpuzip.archive.dictionary import SHIPPED, load_dictionary, read_dictionary
from gpuzip.archive.transform import Transform
from gpuzip.ops._samples import generator

D = 16


def rows(N: int, seed: int = 0) -> Tensor:
    turn: Tensor = torch.linalg.qr(torch.randn(D, D, generator=generator(9))).Q
    return torch.randn(N, D, generator=generator(seed)) * torch.logspace(0, -1, D) @ turn + 0.2


@pytest.fixture(scope="module")
def dictionary() -> gpuzip.Dictionary:
    return gpuzip.train_dictionary(rows(500))


def compressed(x: Tensor, dictionary: Any = None, **dial: Any) -> Archive:
    return gpuzip.TransformCoder(dictionary=dictionary, **(dial or {"max_row_error": 0.3})).fit(x).encode(x)


def file_of(archive: Archive) -> bytes:
    out = io.BytesIO()
    archive.save(out)
    return out.getvalue()


def scheme_of(archive: Archive) -> Transform:
    scheme = archive.codec.scheme
    assert isinstance(scheme, Transform)
    return scheme


def test_small_files_are_smaller_by_a_dictionary(dictionary):
    x = rows(50, 1)
    archive, alone = compressed(x, dictionary), compressed(x)
    assert len(file_of(archive)) < len(file_of(alone)) - 100
    again = gpuzip.open(file_of(archive), dictionary=dictionary)
    assert torch.equal(again.decode(), archive.decode())
    assert torch.linalg.vector_norm(again.decode() - x, dim=1).max() <= 0.3
    assert torch.equal(again.rows([49, 0]), archive.decode()[[49, 0]])


def test_rows_with_a_mean_of_their_own(dictionary):
    x = rows(200, 2) + 3 * torch.randn(D, generator=generator(3))
    archive = compressed(x, dictionary)
    assert not torch.allclose(scheme_of(archive).mean.double(), dictionary.mean, atol=0.1)
    again = gpuzip.open(file_of(archive), dictionary=dictionary)
    assert torch.equal(again.decode(), archive.decode())
    assert torch.linalg.vector_norm(again.decode() - x, dim=1).max() <= 0.3


def test_rows_with_tables_of_their_own(dictionary):
    x = torch.randint(0, 2, (2000, D), generator=generator(4)) * 8.0
    archive = compressed(x, dictionary, max_row_error=1.0)
    assert scheme_of(archive).tables is not dictionary.tables
    again = gpuzip.open(file_of(archive), dictionary=dictionary)
    assert torch.equal(again.decode(), archive.decode())


@pytest.mark.parametrize("dial", [{"min_cosine": 0.9}, {"bits_per_dim": 12}, {"max_bytes": 2200}], ids=str)
def test_dials_with_a_dictionary(dial, dictionary):
    x = rows(100, 5)
    archive = compressed(x, dictionary, **dial)
    quality, size = archive.quality(x), len(file_of(archive))
    assert quality is not None
    assert quality.row_cosine >= dial.get("min_cosine", 0)
    assert size <= dial.get("max_bytes", size) and 8 * size <= dial.get("bits_per_dim", 1e9) * x.numel()


def test_a_dictionary_is_given_as_object_file_or_folder(dictionary, tmp_path: Path):
    x = rows(40, 1)
    path = dictionary.save(tmp_path / "of" / "a.gpuzip-dictionary")
    gpuzip.train_dictionary(rows(300, 7)).save(tmp_path / "of" / "b.gpuzip-dictionary")
    assert load_dictionary(path).hash == dictionary.hash
    data = file_of(compressed(x, str(path)))
    assert data == file_of(compressed(x, dictionary))
    for given in (dictionary, path, str(path), tmp_path / "of"):
        assert torch.equal(gpuzip.open(data, dictionary=given).decode(), compressed(x, dictionary).decode())


def test_a_missing_dictionary_is_refused_with_its_hash(dictionary, tmp_path: Path):
    data, other = file_of(compressed(rows(40), dictionary)), gpuzip.train_dictionary(rows(300, 7))
    assert other.hash != dictionary.hash
    for given in (None, other, tmp_path):
        with pytest.raises(
            gpuzip.FormatError, match=f"need the dictionary {dictionary.hash}, which is not here"
        ):
            gpuzip.open(data, dictionary=given)
    assert gpuzip.info(data).config["dictionary"] == dictionary.hash


def test_a_shipped_dictionary_is_found_by_its_hash(real):
    (path,) = SHIPPED.glob("*.gpuzip-dictionary")
    archive = compressed(real[:20], path, min_cosine=0.9)
    data = file_of(archive)
    assert len(data) < 2600 and torch.equal(gpuzip.load(data), archive.decode())


def test_wrong_dictionaries(dictionary, tmp_path: Path):
    with pytest.raises(gpuzip.GpuzipError, match="x must have 16 columns, as the dictionary; got 3"):
        compressed(rows(40)[:, :3], dictionary)
    with pytest.raises(gpuzip.GpuzipError, match=r"train_dictionary: x must have at least 2 rows; got 1"):
        gpuzip.train_dictionary(rows(1))
    path = dictionary.save(tmp_path / "a.gpuzip-dictionary")
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data)
    with pytest.raises(gpuzip.FormatError, match=r"a\.gpuzip-dictionary: does not match its hash"):
        load_dictionary(path)
    compressed(rows(40)).save(path)
    with pytest.raises(gpuzip.FormatError, match="must be a dictionary that gpuzip wrote"):
        load_dictionary(path)


def test_damaged_dictionaries_are_refused_or_read_within_bounds(dictionary):
    g, refused = generator(1), 0
    for i in range(100):
        data = bytearray(dictionary.data[: len(dictionary.data) - i % 3])
        for at in torch.randint(0, len(data) if i % 2 else 300, (1 + i % 2,), generator=g).tolist():
            data[at] ^= 1 + i
        try:
            assert read_dictionary(bytes(data)).directions.shape == (D, D)
        except gpuzip.FormatError:
            refused += 1
    assert refused > 50
    for short in (b"", dictionary.data[:11], (1 << 31).to_bytes(4, "little") + dictionary.data[4:]):
        with pytest.raises(gpuzip.FormatError):
            read_dictionary(short)
