"""Manifests of datasets that lie, with right checksums, and folders with tricks in them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.dataset.ids import write_ids
from gpuzip.storage.folder import digest_of, ends_of
from gpuzip.storage.header import canonical, seal_of
from gpuzip.storage.tensors import write_tensors
from tests.attacks.forge import peak_growth

Manifest = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of two shards with string ids, of which one has removed rows."""
    x = torch.arange(40.0).view(10, 4)
    data = gpuzip.Dataset.create(tmp_path / "data", gpuzip.HalfQuantizer().fit(x), ids="string")
    data.append(x, [f"row {n}" for n in range(10)])
    data.append(x[:6] + 1, [f"more {n}" for n in range(6)])
    data.remove(["row 3", "row 4"])
    return tmp_path / "data"


def forge(folder: Path, change: Callable[[Manifest], object]) -> None:
    """Change the manifest and seal it again, as one who knows the format would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    manifest.pop("digest", None)
    sealed = manifest | {"digest": seal_of(manifest)}
    for name in ("manifest.json", f"generation-{sealed['digest'][:16]}.json"):
        (folder / name).write_text(canonical(sealed))


def replace_file(folder: Path, entry: Manifest, role: str, path: Path) -> None:
    """Make an entry of the manifest name the file at `path`."""
    digest, suffix = digest_of(path), Path(entry["name"]).suffix
    entry |= {"name": f"{role}-{digest[:16]}{suffix}", "bytes": path.stat().st_size, "digest": digest}
    entry["ends"] = ends_of(path)
    shutil.copy(path, folder / entry["name"])


def use_all(folder: Path) -> None:
    data = gpuzip.Dataset.open(folder)
    data.search(torch.ones(1, 4))
    data.decode()
    data.rows(["row 1"])


def check_refused(folder: Path, match: str = "") -> None:
    def attempt() -> None:
        with pytest.raises(gpuzip.FormatError, match=match or None) as caught:
            use_all(folder)
        assert str(folder) in str(caught.value)

    assert peak_growth(attempt) < 64 << 20


def shard(at: int, **values: Any) -> Callable[[Manifest], object]:
    return lambda manifest: manifest["shards"][at].update(values)


def name(text: str) -> Callable[[Manifest], object]:
    return lambda manifest: manifest["shards"][0]["codes"].update(name=text)


def put(key: str, value: object) -> Callable[[Manifest], object]:
    return lambda manifest: manifest.update({key: value})


OTHER: dict[str, list[object]] = {
    "shards": [None, {}, [None], [[]], "shards"],
    "ids": ["int32", "int64", None, 1, ["int64"]],
    "next": [1, -1, None],
    "dtype": ["int8", "load", None, 3],
    "columns": [{"a": 1}, {"a": "int64"}, [], "a"],
    "generation": [-1, 1.5, None],
    "kind": ["mixed", None, "\x1b[31m"],
    "format": [0, "1", True, None],
}

LIES: list[Callable[[Manifest], object]] = [
    *(name(text) for text in ("../codes.ezip", "/etc/passwd", "codes-0/../x.ezip", "", ".", "codes.ezip\0")),
    name("codes-" + "0" * 16 + ".ezip"),
    lambda m: m["codec"].update(name=m["codec"]["name"].replace("codec", "codes")),
    *(shard(0, n=n) for n in (2**62, 2**63, -1, 0, 9, 11, True, 10.0, "10", None)),
    *(shard(0, removed=n) for n in (0, 1, 3, 10, -2, 2**70)),
    *(shard(1, removed=n) for n in (1, 6)),
    *(shard(0, first=n) for n in (0, -1, 2**62)),
    shard(0, first=0, ids=None),
    *(shard(0, **{role: None}) for role in ("codes", "ids", "gone")),
    shard(0, columns={}),
    shard(0, more=1),
    *(lambda m, n=n: m["shards"][0]["codes"].update(bytes=n) for n in (0, -1, 2**63, True)),
    lambda m: m["shards"][0]["codes"].update(ends="0" * 32),
    lambda m: m["shards"][0]["codes"].update(digest="../" * 10 + "00"),
    lambda m: m["shards"][0].update(codes=m["shards"][1]["codes"]),
    lambda m: m["shards"][0].update(ids=m["shards"][1]["ids"]),
    lambda m: m["shards"][1].update(gone=m["shards"][0]["gone"], removed=2),
    lambda m: m.update(codec=m["shards"][0]["ids"]),
    *(put(key, value) for key, values in OTHER.items() for value in values),
    lambda m: m.update(more=[]),
    lambda m: m.pop("library"),
]


def test_a_manifest_that_lies_is_refused(folder: Path):
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    use_all(folder)
    for number, lie in enumerate(LIES):
        try:
            forge(folder, lie)
            check_refused(folder)
        except BaseException as error:
            raise AssertionError(f"lie {number}") from error
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink()
        (folder / "manifest.json").write_bytes(kept["manifest.json"])


def test_a_newer_format_is_refused_with_the_version_that_reads_it(folder: Path):
    forge(folder, lambda m: m.update(format=2, library="9.8.7"))
    check_refused(folder, r"format 2 is newer .* 9\.8\.7")


NONE = {
    "nothing": b"",
    "brace": b"{",
    "list": b"[]",
    "null": b"null",
    "bytes": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "large": b'{"format": 1' + b" " * (17 << 20),
    "nan": b'{"format": NaN}',
}


@pytest.mark.parametrize("text", NONE.values(), ids=NONE)
def test_a_manifest_that_is_none_is_refused(folder: Path, text: bytes):
    (folder / "manifest.json").write_bytes(text)
    check_refused(folder)


@pytest.mark.parametrize("role", ["manifest", "codec", "codes", "ids", "gone"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path, role: str):
    (path, *_) = folder.glob(f"{role}*")
    outside = tmp_path / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)
    check_refused(folder, "regular file")
    with pytest.raises(gpuzip.FormatError):
        gpuzip.Dataset.open(folder)


def test_pipes_and_folders_in_place_of_files_are_refused(folder: Path):
    for role in ("codes", "ids", "manifest"):
        (path, *_) = folder.glob(f"{role}*")
        whole = path.read_bytes()
        for make in (os.mkfifo, os.mkdir):
            path.unlink()
            make(path)
            check_refused(folder, "regular file")
            if make is os.mkdir:
                path.rmdir()
            else:
                path.unlink()
            path.write_bytes(whole)


def test_files_that_lie_are_refused(folder: Path, tmp_path: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    made = tmp_path / "made"

    def bytes_of(numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64).view(torch.uint8).view(-1, 8)

    def attempt(role: str, tensors: dict[str, torch.Tensor]) -> None:
        with made.open("wb") as out:
            write_tensors(out, tensors)
        forge(folder, lambda m: replace_file(folder, m["shards"][0][role], role, made))
        check_refused(folder)
        forge(folder, lambda m: m.update(manifest))

    text = torch.zeros(70, dtype=torch.uint8)
    for ends in ([*range(9), 71], [*range(9), -1], [5, 4, *range(7), 70], [2**62] * 10, [-(2**63)] * 10):
        attempt("ids", {"ends": bytes_of(ends), "text": text})
    attempt("ids", {"ends": bytes_of([70] * 9), "text": text})
    attempt("ids", {"ends": bytes_of([70] * 10), "text": text + 255})  # no UTF-8
    attempt("ids", {"ids": bytes_of([70] * 10)})
    attempt("gone", {"gone": torch.tensor([3, 255], dtype=torch.uint8)})
    attempt("gone", {"gone": torch.tensor([0, 192], dtype=torch.uint8)})  # two rows beyond the last
    attempt("gone", {"gone": torch.tensor([3], dtype=torch.uint8)})
    attempt("gone", {"rows": torch.tensor([3, 0], dtype=torch.uint8)})


def test_a_shard_of_another_codec_is_refused(folder: Path, tmp_path: Path):
    other = gpuzip.ScalarQuantizer(bits=8).fit(torch.randn(10, 8, generator=torch.Generator().manual_seed(0)))
    other.encode(torch.zeros(10, 8)).save(tmp_path / "other")
    forge(folder, lambda m: replace_file(folder, m["shards"][0]["codes"], "codes", tmp_path / "other"))
    check_refused(folder, "another")


def test_an_id_that_comes_twice_is_found_by_verify(folder: Path, tmp_path: Path):
    with (tmp_path / "made").open("wb") as out:
        write_ids(np.array([f"row {n % 9}" for n in range(10)], object), out)
    forge(folder, lambda m: replace_file(folder, m["shards"][0]["ids"], "ids", tmp_path / "made"))
    with pytest.raises(gpuzip.FormatError, match="'row 0' twice"):
        gpuzip.Dataset.open(folder).verify()


def test_a_writer_removes_nothing_that_is_not_its_own(folder: Path):
    ours = "codes-" + "0" * 16 + ".ezip"
    others = ["notes.txt", "codes-0.ezip", "codes-" + "0" * 16 + ".ezip.bak", "x.ezip"]
    for file in (ours, *others):
        (folder / file).write_bytes(b"x")
    gpuzip.Dataset.open(folder).remove(["row 1"])
    assert {path.name for path in folder.iterdir()} >= set(others)
    assert not (folder / ours).exists()
