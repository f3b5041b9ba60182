"""Rows are appended, removed, replaced and searched by id, as in a plain dict."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.storage.folder import MANIFEST
from tests.dataset.plain import D, Plain, check_same, half, rows_of

KINDS: list[Any] = ["int64", "string", None]


def named(kind: str | None, numbers: Any) -> list[Any]:
    return [f"row {n}" if kind == "string" else n for n in numbers]


def filled(path: Path, kind: Any, parts: int = 3, n: int = 20) -> tuple[gpuzip.Dataset, Plain]:
    """A dataset of some shards, and what it holds."""
    data, plain = gpuzip.Dataset.create(path, half(), ids=kind), Plain()
    for part in range(parts):
        x, ids = rows_of(n, part), named(kind, range(part * n, part * n + n))
        data.append(x, None if kind is None else ids)
        plain.append(x, ids)
    return data, plain


@pytest.mark.parametrize("kind", KINDS)
def test_appended_rows_are_found_by_their_ids(tmp_path: Path, kind: Any):
    data, plain = filled(tmp_path / "new" / "folder", kind)
    check_same(data, plain)
    check_same(gpuzip.Dataset.open(tmp_path / "new" / "folder"), plain)
    wanted = named(kind, [41, 3, 3, 59, 0])
    assert torch.equal(data.rows(wanted), torch.stack([plain.rows[id] for id in wanted]))
    assert named(kind, [7])[0] in data
    assert named(kind, [77])[0] not in data
    assert 1.5 not in data
    assert data.shape == (60, D)
    data.verify()


def test_append_returns_the_ids(tmp_path: Path):
    data = gpuzip.Dataset.create(tmp_path, half())
    assert data.append(rows_of(3, 0)).tolist() == [0, 1, 2]
    assert data.append(rows_of(0, 0)).tolist() == []
    data.remove([2])
    assert data.append(rows_of(2, 1)).tolist() == [3, 4]  # a number is never given again
    assert data.ids.tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_removed_and_updated_rows(tmp_path: Path, kind: Any):
    data, plain = filled(tmp_path, kind)
    for change in (data, plain):
        change.remove(named(kind, [5, 41, 6]))
        change.update(named(kind, [50, 0, 21]), rows_of(3, 9))
        change.remove(named(kind, range(20, 40)))  # a whole shard, and an updated row
    check_same(data, plain)
    check_same(gpuzip.Dataset.open(tmp_path), plain)
    if kind is not None:
        for change in (data, plain):
            change.append(rows_of(2, 4), named(kind, [41, 20]))  # ids of removed rows are free
        check_same(data, plain)
    data.verify()


@pytest.mark.parametrize("kind", KINDS)
def test_compact_keeps_rows_ids_and_order(tmp_path: Path, kind: Any):
    data, plain = filled(tmp_path, kind, parts=5)
    for change in (data, plain):
        change.remove(named(kind, range(3, 80, 3)))
    before = sum(path.stat().st_size for path in tmp_path.iterdir())
    data.compact(removed=0, small=100)
    check_same(data, plain)
    assert data.info().shards == 1
    assert data.info().removed == 0
    after = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert after < before
    size = sum(path.stat().st_size for path in tmp_path.iterdir() if not path.name.startswith("generation"))
    assert data.nbytes == size
    check_same(gpuzip.Dataset.open(tmp_path), plain)
    again = data.info().generation
    data.compact(removed=0, small=100)  # nothing is left to do
    assert data.info().generation == again


def test_compact_copies_the_bytes_of_rows(tmp_path: Path):
    x = torch.randn(300, D, generator=torch.Generator().manual_seed(1))
    codec = gpuzip.ProductQuantizer(m=4, nbits=4).fit_quietly(x)
    data = gpuzip.Dataset.create(tmp_path, codec)
    for part in x.split(100):
        data.append(part)
    data.remove(range(0, 300, 2))
    data.compact(removed=0)
    (shard,) = tmp_path.glob("codes-*.ezip")
    assert torch.equal(gpuzip.open(shard, verify=True).data, codec.encode(x).data[1::2])


def test_compact_takes_what_is_asked_for(tmp_path: Path):
    data, _ = filled(tmp_path, None, parts=4)
    data.remove([*range(5), 20])
    data.compact(removed=0.2, small=0)
    assert [entry.removed for entry in data._view.manifest.shards] == [0, 1, 0, 0]
    data.compact(removed=1, small=18)  # the first shard has 15 rows, no neighbour is small
    assert len(data._view.shards) == 4
    data.compact(removed=1, small=20)
    assert [entry.n for entry in data._view.manifest.shards] == [34, 20, 20]


def test_a_merged_shard_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, plain = filled(tmp_path, "int64", parts=6, n=10)
    monkeypatch.setattr("gpuzip.dataset.compacting.MERGED_BYTES", 25 * 2 * D)
    data.compact()
    assert [entry.n for entry in data._view.manifest.shards] == [20, 20, 20]
    check_same(data, plain)


WRONG = [
    (lambda d: d.append(rows_of(2, 0), ["a", "row 3"]), "'row 3'"),
    (lambda d: d.append(rows_of(2, 0), ["b", "b"]), "'b' twice"),
    (lambda d: d.append(rows_of(2, 0), ["b"]), "2, one per row of x; got 1"),
    (lambda d: d.append(rows_of(2, 0)), "must be given"),
    (lambda d: d.append(rows_of(1, 0), [3]), "list or array of strings"),
    (lambda d: d.append(rows_of(1, 0), "a"), "list or array of strings"),
    (lambda d: d.append(rows_of(1, 0), ["\ud800"]), "UTF-8"),
    (lambda d: d.append(rows_of(1, 0)[:, :3], ["c"]), "columns"),
    (lambda d: d.append(rows_of(1, 0) * float("nan"), ["c"]), "finite|NaN"),
    (lambda d: d.remove(["row 1", "nobody"]), "'nobody'"),
    (lambda d: d.remove(["row 1", "row 1"]), "'row 1' twice"),
    (lambda d: d.update(["row 1", "nobody"], rows_of(2, 0)), "'nobody'"),
    (lambda d: d.update(["row 1", "row 1"], rows_of(2, 0)), "'row 1' twice"),
    (lambda d: d.update(["row 1"], rows_of(2, 0)), "2, one per row of x; got 1"),
    (lambda d: d.rows(["row 1", "nobody"]), "'nobody'"),
    (lambda d: d.compact(removed=2), "from 0 to 1"),
    (lambda d: d.compact(small=-1), "at least 0"),
    (lambda d: d.search(rows_of(1, 0), 0), "k must"),
    (lambda d: d.search(rows_of(1, 0), metric="near"), "metric must"),
    (lambda d: d.search(rows_of(1, 0), filter=["nobody"]), "'nobody'"),
    (lambda d: d.search(rows_of(1, 0), mask=torch.ones(3, dtype=torch.bool)), r"shape \(60,\)"),
    (lambda d: d.search(rows_of(1, 0), 3, radius=1.0), "without k"),
    (lambda d: d.search(rows_of(1, 0), radius=float("nan")), "radius must"),
    (lambda d: d.search(rows_of(1, 0), rescore=rows_of(3, 0)), "60 rows"),
    (lambda d: d.search(rows_of(1, 0), metric="hamming", rescore=rows_of(60, 0)), "metric must"),
]


def test_an_error_names_the_fault_and_changes_nothing(tmp_path: Path):
    data, plain = filled(tmp_path, "string")
    before, manifest = sorted(os.listdir(tmp_path)), (tmp_path / MANIFEST).read_bytes()
    for call, match in WRONG:
        with pytest.raises(gpuzip.GpuzipError, match=match):
            call(data)
        assert sorted(os.listdir(tmp_path)) == before
        assert (tmp_path / MANIFEST).read_bytes() == manifest
    check_same(data, plain)


def test_numbers_as_ids(tmp_path: Path):
    data = gpuzip.Dataset.create(tmp_path, half(), ids="int64")
    ends = [-(2**63), 2**63 - 1]
    data.append(rows_of(2, 0), ends)
    data.append(rows_of(2, 1), torch.tensor([5, -1], dtype=torch.int32))
    data.append(rows_of(1, 2), np.array([9], np.uint8))
    assert data.ids.tolist() == [*ends, 5, -1, 9]
    assert data.search(rows_of(1, 3), 5)[1].dtype == torch.int64
    wrongs: list[Any] = [[0.5], [True], ["a"], [[1]], [2**63], [2**70], 3]
    for wrong in wrongs:
        with pytest.raises(gpuzip.GpuzipError, match="ids must"):
            data.append(rows_of(1, 0), wrong)
        assert 0.5 not in data
    for call in (data.remove, data.rows, lambda ids: data.update(ids, rows_of(1, 0))):
        with pytest.raises(gpuzip.GpuzipError, match="got 77, which none has"):
            call([77])
    with pytest.raises(gpuzip.GpuzipError, match="got 9, which a row has"):
        data.append(rows_of(1, 0), [9])


def test_another_dataset_made_in_the_folder_is_read_with_its_own_codec(tmp_path: Path):
    data, _ = filled(tmp_path / "d", None)
    shutil.rmtree(tmp_path / "d")
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    codec = gpuzip.ScalarQuantizer(bits=8).fit(x)
    gpuzip.Dataset.create(tmp_path / "d", codec).append(x)
    assert torch.equal(data.refresh().decode(), codec.encode(x).decode())


def test_any_text_is_an_id(tmp_path: Path):
    data, texts = gpuzip.Dataset.create(tmp_path, half(), ids="string"), ["", "a\0", "a", "ä", "日本", "\n"]
    data.append(rows_of(6, 0), texts)
    assert list(gpuzip.Dataset.open(tmp_path).ids) == texts
    assert torch.equal(data.rows(np.array(["ä"])), rows_of(6, 0)[3:4])
    pa = pytest.importorskip("pyarrow")
    data.append(rows_of(2, 1), pa.chunked_array([["b"], ["c"]]))
    assert list(data.ids) == [*texts, "b", "c"]


def test_create_wants_an_empty_folder_and_a_fitted_codec(tmp_path: Path):
    with pytest.raises(gpuzip.NotFittedError, match=r"Dataset\.create"):
        gpuzip.Dataset.create(tmp_path / "a", gpuzip.HalfQuantizer())
    with pytest.raises(gpuzip.GpuzipError, match="codec must"):
        gpuzip.Dataset.create(tmp_path / "a", "PQ8")  # type: ignore[arg-type]
    with pytest.raises(gpuzip.GpuzipError, match="ids must"):
        gpuzip.Dataset.create(tmp_path / "a", half(), ids="int32")  # type: ignore[arg-type]
    with pytest.raises(gpuzip.GpuzipError, match="dtype must"):
        gpuzip.Dataset.create(tmp_path / "a", half(), dtype=torch.int8)
    assert not (tmp_path / "a").exists()
    gpuzip.Dataset.create(tmp_path / "a", half())
    with pytest.raises(gpuzip.GpuzipError, match=r"Dataset\.open"):
        gpuzip.Dataset.create(tmp_path / "a", half())
    with pytest.raises(gpuzip.GpuzipError, match="holds a"):
        gpuzip.Dataset.create(tmp_path, half())
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        gpuzip.Dataset.create(tmp_path / "file", half())


def test_open_says_what_is_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        gpuzip.Dataset.open(tmp_path / "nowhere")
    with pytest.raises(gpuzip.FormatError, match="manifest"):
        gpuzip.Dataset.open(tmp_path)
    x = rows_of(100, 0)
    gpuzip.MixedCodes([half().encode(x)]).save(tmp_path / "mixed")
    with pytest.raises(gpuzip.FormatError, match="mixed"):
        gpuzip.Dataset.open(tmp_path / "mixed")
    filled(tmp_path / "data", None)
    with pytest.raises(gpuzip.FormatError, match=r"gpuzip\.Dataset\.open"):
        gpuzip.open(tmp_path / "data")
    with pytest.raises(gpuzip.FormatError, match="dataset"):
        gpuzip.MixedCodes([half().encode(x)]).save(tmp_path / "data")


def test_rows_are_decoded_in_the_dtype_of_the_dataset(tmp_path: Path):
    data = gpuzip.Dataset.create(tmp_path, half(), dtype=torch.float16)
    data.append(rows_of(3, 0).double())
    data.append(rows_of(3, 1).numpy())
    data.remove([1])
    assert data.dtype == data.decode().dtype == data.rows([0]).dtype == torch.float16
    for shard in tmp_path.glob("codes-*.ezip"):
        assert gpuzip.info(shard).dtype == torch.float16  # each is a file that gpuzip.open reads


def test_info_and_repr(tmp_path: Path):
    data, _ = filled(tmp_path / "mine", "string")
    data.remove(["row 1"])
    info = data.info()
    assert (info.n, info.d, info.shards, info.removed, info.ids) == (59, D, 3, 1, "string")
    assert "59 x 8" in repr(data)
    assert "path: mine" in str(info)
    assert "<table" in data._repr_html_()


def test_two_shards_of_the_same_bytes_share_a_file(tmp_path: Path):
    data = gpuzip.Dataset.create(tmp_path, half())
    data.append(rows_of(5, 0))
    data.append(rows_of(5, 0))
    assert len(list(tmp_path.glob("codes-*.ezip"))) == 1
    data.remove(range(5))
    assert torch.equal(gpuzip.Dataset.open(tmp_path).decode(), rows_of(5, 0))


def test_codes_that_were_made_elsewhere_are_appended_as_they_are(tmp_path: Path):
    codec, x = half(), rows_of(9, 0)
    data = gpuzip.Dataset.create(tmp_path, codec, ids="int64")
    data.append(codec.encode(x[:4]), [3, 1, 2, 0])
    data.append(x[4:], range(4, 9))
    assert torch.equal(data.rows([3, 1, 2, 0, *range(4, 9)]), codec.encode(x).decode())
    other = gpuzip.ScalarQuantizer().fit(x).encode(x)
    with pytest.raises(gpuzip.GpuzipError, match="codes must be of the codec of the dataset"):
        data.append(other, range(20, 29))
    assert len(data) == 9
