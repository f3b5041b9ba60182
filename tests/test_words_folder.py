"""Folders of word vectors: replaced completely or not at all, and refused if incomplete or altered."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path
from typing import Any

import pytest
import torch

from gpuzip.codecs import LloydMaxQuantizer
from gpuzip.codecs.mixed import MixedCodes
from gpuzip.errors import FormatError, GpuzipError, MissingDependencyError
from gpuzip.storage import folder
from gpuzip.storage.folder import read_folder, write_folder
from gpuzip.words import WordVectors, load, marisa

pytest.importorskip("pyarrow")

FORMS = ["arrow", "trie"]
N, D = 60, 8


def vectors(seed: int, n: int = N) -> WordVectors:
    x = torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
    parts = [
        LloydMaxQuantizer(bits).fit(x).encode(rows) for bits, rows in ((4, x[: n // 3]), (2, x[n // 3 :]))
    ]
    return WordVectors([f"{seed}-{i}" for i in range(n)], MixedCodes(parts))


def same(a: WordVectors, b: WordVectors) -> bool:
    return list(a) == list(b) and torch.equal(a.codes.decode(), b.codes.decode())


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "v.sfry"


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    if request.param == "trie":
        pytest.importorskip("marisa_trie")
    return str(request.param)


@pytest.fixture
def saved(path: Path, form: str) -> Path:
    vectors(0).save(path, words=form)
    return path


def test_load_opens_what_save_wrote(saved: Path, form: str):
    opened = load(saved, verify=True)
    assert same(opened, vectors(0)) and opened.words.kind == form
    assert [len(part) for part in opened.codes.parts] == [20, 40]  # type: ignore[union-attr]
    names = set(os.listdir(saved)) - {"manifest.json"}
    assert len(names) == 4 and all(re.search(r"-[0-9a-f]{16}\.", name) for name in names)


def test_same_vectors_make_the_same_files(saved: Path, tmp_path: Path, form: str):
    vectors(0).save(tmp_path / "again", words=form)
    load(saved).save(tmp_path / "third", words=form)
    for other in ("again", "third"):
        assert sorted(os.listdir(tmp_path / other)) == sorted(os.listdir(saved))
        assert (tmp_path / other / "manifest.json").read_bytes() == (saved / "manifest.json").read_bytes()


def test_save_replaces_a_folder_even_with_vectors_mapped_from_it(saved: Path):
    old = load(saved)
    vectors(1).save(saved, words="arrow")
    assert same(load(saved, verify=True), vectors(1)) and len(os.listdir(saved)) == 5
    if os.name == "posix":
        assert same(old, vectors(0))  # its files are removed, but still mapped
        old.save(saved)
        assert same(load(saved, verify=True), vectors(0))
    load(saved).save(saved)
    assert same(load(saved, verify=True), vectors(0)) and len(os.listdir(saved)) == 5


STEPS = [
    (folder, "digest_of"),
    (folder, "ends_of"),
    (os, "replace"),
    (folder, "sync_folder"),
    (folder, "_sealed"),
    (os, "fsync"),
    (folder, "_sweep"),
]


@pytest.mark.parametrize("at", range(len(STEPS)))
def test_interrupt_at_any_step_leaves_a_complete_folder(path: Path, at: int):
    """Interrupt each step at its first call, its second, and so on."""
    vectors(0).save(path)
    stop = KeyboardInterrupt if at % 2 else PermissionError
    where, name = STEPS[at]
    call, states = 0, []
    while True:
        call += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(where, name, interrupted(getattr(where, name), call, stop))
            try:
                vectors(1).save(path)
                break
            except stop:
                opened = load(path, verify=True)
                states.append(next(i for i in (0, 1) if same(opened, vectors(i))))
                vectors(0).save(path)
                assert same(load(path, verify=True), vectors(0)) and len(os.listdir(path)) == 5
    assert states == sorted(states)
    assert same(load(path, verify=True), vectors(1)) and len(os.listdir(path)) == 5


def interrupted(real: Callable[..., Any], call: int, stop: type[BaseException]) -> Callable[..., Any]:
    calls = iter(range(1, 10**6))

    def step(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            raise stop("interrupted")
        return real(*args, **kwargs)

    return step


CRASH = """
import os, sys, torch
sys.path.insert(0, {tests!r})
from test_words_folder import vectors
from gpuzip.storage import folder
real, calls = os.replace, iter(range(100))
def replace(a, b):
    if next(calls) == {at}:
        os._exit(7)
    real(a, b)
os.replace = replace
vectors(1).save({path!r})
"""


@pytest.mark.full
@pytest.mark.parametrize("at", [1, 6])
def test_crash_keeps_the_old_state_and_the_next_save_cleans_up(path: Path, at: int):
    vectors(0).save(path)
    code = CRASH.format(tests=str(Path(__file__).parent), path=str(path), at=at)
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(root)}, check=False
    )
    assert done.returncode == 7
    assert same(load(path, verify=True), vectors(0)) and len(os.listdir(path)) > 5
    vectors(1).save(path)
    assert same(load(path, verify=True), vectors(1)) and len(os.listdir(path)) == 5


@pytest.mark.skipif(os.name != "posix", reason="needs flock")
def test_writers_of_one_folder_at_once_leave_one_whole_state(path: Path):
    both = [vectors(0), vectors(1)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: both[i % 2].save(path), range(16)))
    opened = load(path, verify=True)
    assert any(same(opened, one) for one in both) and len(os.listdir(path)) == 5


@pytest.mark.full
@pytest.mark.skipif(os.name != "posix", reason="needs flock")
def test_a_writer_waits_for_another_process_and_no_longer_than_it_lives(path: Path):
    vectors(0).save(path)
    hold = "import sys; from pathlib import Path; from gpuzip.storage.locks import one_writer\n"
    hold += "with one_writer(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(vectors(1).save, path)
        with pytest.raises(TimeoutError):
            saving.result(0.3)
        assert same(load(path), vectors(0))
        holder.kill()
        saving.result(600)
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    assert same(load(path, verify=True), vectors(1))


def test_a_first_writing_that_fails_leaves_nothing_to_read(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder, "_sealed", interrupted(folder._sealed, 1, OSError))
    with pytest.raises(OSError, match="interrupted"):
        vectors(0).save(path)
    assert os.listdir(path) == []
    with pytest.raises(FormatError, match=r"must hold manifest\.json"):
        load(path)
    vectors(0).save(path)
    assert same(load(path), vectors(0))


def test_keeps_other_files(saved: Path, tmp_path: Path):
    (saved / "notes.txt").write_text("mine")
    vectors(1).save(saved)
    assert (saved / "notes.txt").read_text() == "mine"
    with pytest.raises(GpuzipError, match=r"must be new, empty or a folder of gpuzip; it holds deep"):
        vectors(1).save(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"manifest_version": 3}')
    with pytest.raises(FormatError, match="must have a format number"):
        vectors(1).save(tmp_path / "other")
    with pytest.raises(NotADirectoryError, match="is a file"):
        vectors(1).save(saved / "notes.txt")


def test_rereads_a_folder_that_is_replaced_meanwhile(tmp_path: Path):
    def put(text: str) -> None:
        write_folder(tmp_path / "f", "texts", {"n": 1}, {"text.txt": lambda path: path.write_text(text)})

    put("old")
    seen = []

    def read(found: folder.Folder) -> str:
        seen.append(found.file("text.txt"))
        if len(seen) == 1:
            put("new")
        return found.file("text.txt").read_text()

    assert read_folder(tmp_path / "f", "texts", read, verify=True) == "new" and len(seen) == 2


def member(path: Path, label: str) -> Path:
    manifest = json.loads((path / "manifest.json").read_text())
    return path / str(manifest["files"][label]["name"])


def labels(form: str) -> list[str]:
    words = {"arrow": ["words.arrow", "lookup.safetensors"], "trie": ["words.trie", "rows.safetensors"]}
    return ["part-0.ezip", "part-1.ezip", *words[form]]


@pytest.mark.parametrize("which", range(4))
def test_refuses_a_missing_truncated_or_extended_file(saved: Path, form: str, which: int):
    path = member(saved, labels(form)[which])
    data = path.read_bytes()
    for wrong in (data[:-1], data + b"\0", b""):
        path.write_bytes(wrong)
        with pytest.raises(
            FormatError, match=f"{path.name}: must have .* bytes, as in the manifest; it has {len(wrong)}"
        ):
            load(saved)
    path.unlink()
    with pytest.raises(FormatError, match=f"{path.name}: is missing"):
        load(saved)


@pytest.mark.parametrize("which", range(4))
def test_verify_finds_any_altered_byte(saved: Path, form: str, which: int):
    path = member(saved, labels(form)[which])
    data = path.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 40)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(FormatError, match=f"{path.name}: does not match its checksum in the manifest"):
            load(saved, verify=True)


def test_refuses_a_swapped_file_without_verify(saved: Path, tmp_path: Path, form: str):
    vectors(5).save(tmp_path / "other", words=form)
    for label in labels(form):
        mine, theirs = member(saved, label), member(tmp_path / "other", label)
        data, other = mine.read_bytes(), theirs.read_bytes()
        if data == other:  # the rows of the numbers of both tries
            continue
        assert len(other) == len(data) or label == "words.trie"
        mine.write_bytes(other)
        with pytest.raises(FormatError, match=mine.name):
            load(saved)
        mine.write_bytes(data)
    assert same(load(saved), vectors(0))


def test_refuses_large_swapped_parts_by_their_headers(path: Path, tmp_path: Path):
    vectors(0, n=30_000).save(path)
    vectors(1, n=30_000).save(tmp_path / "other")
    mine, theirs = member(path, "part-1.ezip"), member(tmp_path / "other", "part-1.ezip")
    mine.write_bytes(theirs.read_bytes())
    with pytest.raises(FormatError, match=f"{mine.name}: does not match its checksum in the manifest"):
        load(path)


def test_finds_an_altered_trie_without_verify(path: Path):
    pytest.importorskip("marisa_trie")
    vectors(0, n=20_000).save(path, words="trie")
    file = member(path, "words.trie")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    with pytest.raises(FormatError, match=f"{file.name}: does not match its checksum in the manifest"):
        load(path)


@pytest.mark.full
def test_a_trie_that_is_forged_ends_no_process_and_holds_none(path: Path, monkeypatch: pytest.MonkeyPatch):
    """With digests that are right: marisa itself crashes on some of these, and loops on others."""
    pytest.importorskip("marisa_trie")
    monkeypatch.setattr(marisa, "PATIENCE", 3.0)
    vectors(0).save(path, words="trie")
    data, draw = member(path, "words.trie").read_bytes(), random.Random(0)
    refused = []
    for at in [0, 16, 24, 40, *(draw.randrange(len(data)) for _ in range(8))]:
        forged = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        replace_member(path, "words.trie", forged)
        try:
            opened = load(path)
        except FormatError as error:
            refused.append(str(error))
        else:
            assert [opened.index_of(word) for word in opened] == list(range(N))
    assert len(refused) >= 2 and all("words-" in text for text in refused)


HANGS = "import time; time.sleep(3600)"
FLOODS = "print('x' * 80_000_000)"
CRASHES = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"


@pytest.mark.skipif(os.name != "posix", reason="signals and limits are posix")
@pytest.mark.parametrize(
    ("child", "why"),
    [(HANGS, "comes to no end"), (FLOODS, "cannot be read as a trie"), (CRASHES, "ended with -11")],
    ids=["hangs", "floods", "crashes"],
)
def test_a_trie_whose_reader_hangs_floods_or_crashes_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, child: str, why: str
):
    pytest.importorskip("marisa_trie")
    vectors(0).save(path, words="trie")
    monkeypatch.setattr(marisa, "PATIENCE", 2.0 if child == HANGS else 600.0)
    monkeypatch.setattr(marisa, "_CHILD", marisa._CHILD.replace("trie.mmap(path)", child))
    with pytest.raises(FormatError, match=f"words-.*trie.*{why}"):
        load(path)


def replace_member(path: Path, label: str, data: bytes) -> None:
    """Another file in the place of one, with a manifest that fits."""
    file = member(path, label)
    file.write_bytes(data)
    entry = {"bytes": len(data), "digest": folder.digest_of(file), "ends": folder.ends_of(file)}
    resealed(path, lambda manifest: manifest["files"][label].update(entry))


def resealed(path: Path, change: Callable[[dict], object]) -> None:
    """Change a manifest and give it a valid digest."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    del manifest["digest"]
    manifest["digest"] = hashlib.blake2b(folder._text(manifest).encode(), digest_size=16).hexdigest()
    (path / "manifest.json").write_text(folder._text(manifest))


def put(*keys: str, value: Any) -> Callable[[dict], object]:
    def change(manifest: dict) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value

    return change


LIES = {
    "a path up": (
        put("files", "words.arrow", "name", value="../words-0123456789abcdef.arrow"),
        "wrong types",
    ),
    "an absolute path": (put("files", "words.arrow", "name", value="/etc/passwd"), "wrong types"),
    "a backslash": (
        put("files", "words.arrow", "name", value="a\\words-0123456789abcdef.arrow"),
        "wrong types",
    ),
    "no name": (put("files", "words.arrow", "name", value=7), "wrong types"),
    "files of a list": (put("files", value=[]), "wrong types"),
    "a newer format": (put("format", value=2), "newer than this version reads"),
    "format as text": (put("format", value="1"), "must have a format number"),
    "another kind": (put("kind", value="numbers"), "must hold 'words'; it holds 'numbers'"),
    "another field": (put("more", value=1), "does not match"),
    "no files": (put("files", value={}), r"must name part-0\.ezip"),
    "no rows": (put("about", "rows", value=[]), "must describe word vectors"),
    "many rows": (put("about", "rows", value=[20, 41]), r"must have shape \(41, 8\), .*; it has \(40, 8\)"),
    "negative rows": (put("about", "rows", value=[20, -41]), "must describe word vectors"),
    "rows as text": (put("about", "rows", value="20"), "must describe word vectors"),
    "one part less": (put("about", "rows", value=[20]), "must hold 20 words"),
    "other dimensions": (put("about", "d", value=9), r"must have shape \(20, 9\)"),
    "words in no form": (put("about", "words", value="dict"), "must describe word vectors"),
    "words in a list": (put("about", "words", value=["arrow"]), "must describe word vectors"),
    "words in another form": (put("about", "words", value="trie"), r"must name words\.trie"),
    "no mixture": (put("about", "mixed", value=False), "must describe word vectors"),
}


@pytest.mark.parametrize("lie", LIES)
def test_refuses_a_false_manifest(path: Path, lie: str):
    vectors(0).save(path)
    change, message = LIES[lie]
    resealed(path, change)
    with pytest.raises(FormatError, match=message):
        load(path)


def test_refuses_an_altered_manifest(path: Path):
    vectors(0).save(path)
    manifest = path / "manifest.json"
    text = manifest.read_text()
    for wrong in (text.replace('"d": 8', '"d": 9'), text[:-3], "", "{}", "[" * 10**5, text + " ", "\xff"):
        manifest.write_text(wrong)
        with pytest.raises(FormatError, match=r"manifest\.json"):
            load(path)
    manifest.write_text(text + " " * folder.MANIFEST_LIMIT)
    with pytest.raises(FormatError, match="must have at most"):
        load(path)


def test_refuses_paths_that_are_not_folders(path: Path, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        load(path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="is a file"):
        load(tmp_path / "file")
    with pytest.raises(FormatError, match=r"must hold manifest\.json"):
        load(tmp_path)
    with pytest.raises(GpuzipError, match=r"words must be one of arrow, trie.*; got 'json'"):
        vectors(0).save(path, words="json")


@pytest.mark.parametrize(("package", "words"), [("pyarrow", "arrow"), ("marisa_trie", "trie")])
def test_names_a_missing_package(path: Path, monkeypatch: pytest.MonkeyPatch, package: str, words: str):
    pytest.importorskip(package)
    vectors(0).save(path, words=words)
    monkeypatch.setitem(sys.modules, package, None)
    for use in (lambda: load(path), lambda: vectors(0).save(path, words=words)):
        with pytest.raises(MissingDependencyError, match=r"is not installed: pip install 'gpuzip\[words\]'"):
            use()
    monkeypatch.undo()
    assert same(load(path, verify=True), vectors(0))
