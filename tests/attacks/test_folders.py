"""Folders whose manifests or files lie, with digests that are right: refused by name, in little memory."""

import copy
import hashlib
import json
import os
import random
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gpuzip
from gpuzip.interop import smallfry
from gpuzip.storage import folder as folders
from tests.attacks.forge import check_refused
from tests.attacks.mutations import mutated, with_digest
from tests.test_smallfry import write_folder

N, D = 60, 8


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two parts, whose rows are mixed by groups."""
    path = tmp_path_factory.mktemp("original") / "mixed"
    x = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    group = torch.arange(N) % 3 == 0
    parts = [
        gpuzip.HalfQuantizer().fit(x).encode(x[~group]),
        gpuzip.BinaryQuantizer().fit(x).encode(x[group]),
    ]
    gpuzip.MixedCodes(parts, group.to(torch.uint8)).save(path)
    return path


@pytest.fixture
def mixed(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "mixed"))


def manifest_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / folders.MANIFEST).read_text())
    return found


def seal(path: Path, manifest: dict[str, Any]) -> None:
    (path / folders.MANIFEST).write_bytes(with_digest(json.dumps(manifest).encode()))


def replace(path: Path, label: str, data: bytes) -> None:
    """Other bytes for a labelled file, with all digests right."""
    manifest, digest = manifest_of(path), hashlib.blake2b(data, digest_size=16).hexdigest()
    stem, suffix = os.path.splitext(label)
    name = f"{stem}-{digest[:16]}{suffix}"
    (path / name).write_bytes(data)
    ends = hashlib.blake2b(data[:4096] + data[-4096:], digest_size=16).hexdigest()
    manifest["files"][label] = {"name": name, "bytes": len(data), "digest": digest, "ends": ends}
    seal(path, manifest)


def check(path: Path, match: str = "") -> None:
    readers: list[Callable[[Path], Any]] = [gpuzip.open, gpuzip.load, gpuzip.open_mixed]
    for read in readers:
        check_refused(path, read, match)


def test_a_folder_that_is_sealed_again_is_read(mixed: Path, original: Path):
    seal(mixed, manifest_of(mixed))
    label = "part-0.ezip"
    replace(mixed, label, (mixed / manifest_of(mixed)["files"][label]["name"]).read_bytes())
    assert torch.equal(gpuzip.load(mixed), gpuzip.load(original))


NAMES = [
    *("../mixed/part-0-0123456789abcdef.ezip", "/etc/passwd", "..", ".", "", "manifest.json", "a\0b"),
    *(
        "part-0.ezip",
        "PART-0-0123456789abcdef.ezip",
        "part-0-0123456789abcdef.ezip\n",
        "part-0-0123456789abcdeg.ezip",
    ),
    *("\u212aart-0-0123456789abcdef.ezip", "part-\u0660-0123456789abcdef.ezip", "a" * 5000),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:30])
def test_names_that_are_no_names_of_this_folder_are_refused(mixed: Path, name: str):
    manifest = manifest_of(mixed)
    manifest["files"]["part-0.ezip"]["name"] = name
    seal(mixed, manifest)
    check(mixed)


VALUES: list[Any] = [None, True, -1, 0, 1 << 62, 10**30, 0.5, "", [], {}, [[]], "x" * 70_000]
PLACES = [
    "format",
    "library",
    "kind",
    "about",
    "files",
    "part-0.ezip",
    "name",
    "bytes",
    "digest",
    "ends",
    "parts",
]


@pytest.mark.parametrize("place", PLACES)
def test_values_of_wrong_types_and_sizes_are_refused(mixed: Path, place: str):
    whole = manifest_of(mixed)
    for value in VALUES:
        manifest = copy.deepcopy(whole)
        entry = manifest["files"]["part-0.ezip"]
        if place in manifest and place != "digest":
            manifest[place] = value
        elif place == "parts":
            manifest["about"][place] = value
        elif place == "part-0.ezip":
            manifest["files"][place] = value
        else:
            entry[place] = value
        seal(mixed, manifest)
        if place == "library":  # which is for people
            assert gpuzip.open(mixed).shape == (N, D)
        elif place == "digest" and isinstance(value, str):  # of all bytes, which `load` reads
            check_refused(mixed, gpuzip.load, "does not match its checksum")
        else:
            check(mixed)


@pytest.mark.parametrize("depth", [100, 5000, 200_000])
def test_a_manifest_of_any_depth_is_refused(mixed: Path, depth: int):
    for open_, close in (("[", "]"), ('{"a":', "}")):
        (mixed / folders.MANIFEST).write_text(open_ * depth + "1" + close * depth)
        check(mixed)


def test_a_manifest_of_megabytes_is_not_read(mixed: Path):
    with open(mixed / folders.MANIFEST, "ab") as file:
        file.truncate(1 << 34)  # a hole
    check(mixed, "must have at most 1048576 bytes")


@pytest.mark.skipif(sys.platform != "linux", reason="needs pipes and devices with names")
def test_links_to_devices_and_pipes_are_not_waited_for(mixed: Path):
    part = mixed / manifest_of(mixed)["files"]["part-0.ezip"]["name"]
    part.unlink()
    os.mkfifo(part)
    check(mixed, "is missing")
    part.unlink()
    part.symlink_to("/dev/zero")
    check(mixed, "is missing")
    (mixed / folders.MANIFEST).unlink()
    (mixed / folders.MANIFEST).symlink_to("/dev/zero")
    for read in (gpuzip.open_mixed, lambda path: gpuzip.open_mixed(path, verify=True)):
        check_refused(mixed, read, r"must hold manifest\.json")


def test_one_file_for_two_parts_is_refused(mixed: Path):
    manifest = manifest_of(mixed)
    manifest["files"]["part-1.ezip"] = manifest["files"]["part-0.ezip"]
    seal(mixed, manifest)
    check(mixed, "must belong together")


def tensors_file(**tensors: tuple[str, list[int], bytes]) -> bytes:
    header, body = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        entry = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
        header[name], body = entry, body + raw
    text = json.dumps(header)
    text += " " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text.encode() + body


GROUPS: dict[str, bytes] = {
    "no group": tensors_file(x=("U8", [N], bytes(N))),
    "fewer rows": tensors_file(group=("U8", [N - 1], bytes(N - 1))),
    "more rows": tensors_file(group=("U8", [1 << 16], bytes(1 << 16))),
    "other groups": tensors_file(group=("U8", [N], b"\2" * N)),
    "one group": tensors_file(group=("U8", [N], bytes(N))),
    "floats": tensors_file(group=("F32", [N], bytes(4 * N))),
    "two dimensions": tensors_file(group=("U8", [N, 1], bytes(N))),
    "a terabyte": tensors_file(group=("U8", [1 << 40], bytes(N))),
    "nothing": b"",
    "text": b"group",
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_that_lie_are_refused(mixed: Path, name: str):
    replace(mixed, "group.safetensors", GROUPS[name])
    check(mixed)


def test_a_part_of_other_rows_is_refused(mixed: Path, tmp_path: Path):
    codes = gpuzip.HalfQuantizer().fit(torch.eye(D)).encode(torch.eye(D))
    codes.save(tmp_path / "other.ezip")
    replace(mixed, "part-0.ezip", (tmp_path / "other.ezip").read_bytes())
    check(mixed, "must belong together")
    replace(mixed, "part-0.ezip", b"")
    check_refused(mixed / manifest_of(mixed)["files"]["part-0.ezip"]["name"], lambda _: gpuzip.open(mixed))


def test_smallfry_files_that_are_mutated_are_read_or_refused(tmp_path: Path):
    """They have no checksums, so that other rows may be read."""
    path, generator, seen = tmp_path / "old.sfry", random.Random(0), set()
    write_folder(path, [4, 1], [0, 20], "list")
    originals = {file.name: file.read_bytes() for file in path.iterdir()}
    for _ in range(100):
        name, other = generator.choice(list(originals)), generator.choice(list(originals.values()))
        (path / name).write_bytes(mutated(generator, originals[name], other))
        try:
            smallfry.load(path).codes.decode()
            seen.add("read")
        except gpuzip.FormatError as error:
            seen.add("refused" if str(path) in str(error) else f"nameless {error!r}")
        (path / name).write_bytes(originals[name])
    assert seen == {"read", "refused"}
