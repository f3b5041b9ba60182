"""Codes behind URLs of fsspec: what is read, what is refused, and what an interrupted write leaves."""

import dataclasses
import io
import json
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip.storage import blocks
from tests.test_file_blocks import CODECS, READERS, D, N, encoded, flipped, planes_of, saved

fsspec = pytest.importorskip("fsspec")
buffered = pytest.importorskip("fsspec.spec")

pytestmark = pytest.mark.filterwarnings("ignore:.*should have at least:UserWarning")

URL = "memory://folder/x.ezip"
ROWS = 20  # rows per block, of which the last has 3


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def memory() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


@pytest.fixture
def spans(memory: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Each range of bytes that is read from memory://."""
    read: list[tuple[int, int]] = []
    cat_file = type(memory).cat_file

    def counted(self: Any, path: str, start: int, end: int) -> bytes:
        read.append((start, end))
        return bytes(cat_file(self, path, start, end))

    monkeypatch.setattr(type(memory), "cat_file", counted)
    return read


def put(memory: Any, data: bytes) -> None:
    memory.pipe_file("/folder/x.ezip", data)


def in_blocks(codes: gpuzip.Codes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The file of these codes in blocks of 20 rows."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", ROWS * codes.codec.code_size)
    return saved(codes)


def places(data: bytes) -> dict[str, tuple[int, int]]:
    """Where in the file each tensor begins and ends."""
    first = 8 + struct.unpack("<Q", data[:8])[0]
    entries = json.loads(data[8:first])
    return {
        name: (first + entry["data_offsets"][0], first + entry["data_offsets"][1])
        for name, entry in entries.items()
        if name != "__metadata__"
    }


SLOW = ("one by one", "slices", "most_similar", "to")
EVERY = [
    pytest.param(reader, name, marks=pytest.mark.full if name != "rabitq-4" or reader in SLOW else ())
    for reader in READERS
    for name in ("scalar", "rabitq-4", "pq")
]


@pytest.mark.parametrize(("reader", "name"), EVERY)
def test_every_reader_reads_what_a_file_holds_and_finds_damage(
    x: Tensor, memory: Any, monkeypatch: pytest.MonkeyPatch, reader: str, name: str
):
    codes, read = encoded(name, x), READERS[reader]
    data = in_blocks(codes, monkeypatch)
    put(memory, data)
    right, found = read(codes, x), read(gpuzip.open(URL), x)
    assert torch.equal(found, right) if isinstance(right, Tensor) else found == right
    planes = planes_of(data)
    for block in (0, 5, 10):
        plane, first, last = planes[block % len(planes)], ROWS * block, min(ROWS * block + 19, N - 1)
        put(memory, flipped(data, last, plane))
        damaged = gpuzip.open(URL)
        for _ in range(2):
            with pytest.raises(gpuzip.FormatError, match=rf"^{URL}: rows {first} to {last} of {plane} do"):
                read(damaged, x)


@pytest.mark.parametrize("name", CODECS)
def test_opening_reads_all_but_the_codes_and_rows_read_their_blocks(
    x: Tensor, memory: Any, spans: list, monkeypatch: pytest.MonkeyPatch, name: str
):
    codes = encoded(name, x)
    data = in_blocks(codes, monkeypatch)
    put(memory, data)
    at = places(data)
    planes, length = planes_of(data), struct.unpack("<Q", data[:8])[0]
    others = sum(stop - start for key, (start, stop) in at.items() if key not in planes)
    assert gpuzip.info(URL) == dataclasses.replace(gpuzip.info(data), path=URL)
    assert spans == [(0, 8), (8, 8 + length)]
    spans.clear()
    remote = gpuzip.open(URL)
    assert len(remote) == N and remote.nbytes == codes.nbytes and "Codes(203" in repr(remote)
    assert sum(stop - start for start, stop in spans) == 8 + length + others
    spans.clear()
    ids = [N - 1, 47, 45, -N]
    assert torch.equal(remote.rows(ids), codes.rows(ids))
    widths = {key: (at[key][1] - at[key][0]) // N for key in planes}
    wanted = {
        (at[key][0] + first * widths[key], at[key][0] + stop * widths[key])
        for key in planes
        for first, stop in ((0, 20), (40, 60), (200, 203))
    }
    assert len(spans) == len(wanted) and set(spans) == wanted
    assert torch.equal(remote.rows(ids), codes.rows(ids)) and len(spans) == len(wanted)  # fetched once
    spans.clear()
    assert torch.equal(remote.decode(), codes.decode())
    assert sum(stop - start for start, stop in spans) == codes.data.nbytes - sum(b - a for a, b in wanted)
    assert torch.equal(gpuzip.load(URL), codes.decode())


def test_the_plane_of_signs_is_searched_without_the_others(
    x: Tensor, memory: Any, spans: list, monkeypatch: pytest.MonkeyPatch
):
    codes = encoded("rabitq-4", x)
    data = in_blocks(codes, monkeypatch)
    put(memory, data)
    remote, at = gpuzip.open(URL), places(data)
    spans.clear()
    found = remote.search(x[:1], 1, "ip", rescore=True, rescore_multiplier=1, candidates="plane")
    assert torch.equal(found[1], codes.search(x[:1], 1, "ip", None, True, 1, "plane")[1])
    deep = [(start, stop) for start, stop in spans if at["codes.2"][0] <= start < at["codes.2"][1]]
    assert len(deep) == 1  # the block of the one candidate
    assert (at["codes"][0], at["codes"][1]) in spans


def test_ranges_that_lie_together_are_read_together_and_none_is_large(
    x: Tensor, memory: Any, spans: list, monkeypatch: pytest.MonkeyPatch
):
    codes = encoded("scalar", x)
    data = in_blocks(codes, monkeypatch)
    put(memory, data)
    start, size = places(data)["codes"][0], ROWS * D
    monkeypatch.setattr(blocks, "_AT_ONCE", (3 * size, 2))
    remote = gpuzip.open(URL)
    remote.rows([0, 25, 130])
    assert spans[-2:] == [(start, start + 2 * size), (start + 6 * size, start + 7 * size)]
    spans.clear()
    assert torch.equal(remote.decode(), codes.decode())
    parts = [(2, 5), (5, 6), (7, 10)]
    assert spans[:3] == [(start + a * size, start + b * size) for a, b in parts]
    assert spans[3:] == [(start + 10 * size, start + N * D)]


def test_a_codec_is_read_without_rows(x: Tensor, memory: Any, spans: list):
    codes = encoded("pq", x)
    codes.save(URL)
    assert gpuzip.load_codec(URL).same_as(codes.codec)
    data = memory.cat_file("/folder/x.ezip", None, None)
    start, stop = places(data)["codes"]
    assert all(end <= start or begin >= stop for begin, end in spans[:-1])


@pytest.mark.parametrize("n", [0, 1])
def test_files_of_no_row_and_of_one(x: Tensor, memory: Any, n: int):
    codes = encoded("half", x)[:n]
    codes.save(URL)
    assert torch.equal(gpuzip.open(URL).decode(), codes.decode())
    assert torch.equal(gpuzip.load(URL), codes.decode())


def test_files_of_format_1_are_read_at_once_and_verified(memory: Any, spans: list):
    path = next(Path(__file__).with_name("golden").glob("bits8.ezip"))
    put(memory, path.read_bytes())
    remote = gpuzip.open(URL)
    assert gpuzip.info(URL).format == 1
    read = len(spans)
    assert torch.equal(remote.decode(), gpuzip.load(path)) and len(spans) == read
    put(memory, flipped(path.read_bytes(), 0))
    with pytest.raises(gpuzip.FormatError, match="codes does not match its checksum"):
        gpuzip.open(URL)


def test_save_replaces_what_is_there_and_leaves_nothing_beside(x: Tensor, memory: Any):
    for name in ("pq", "scalar"):
        codes = encoded(name, x)
        info = codes.save(URL, x)
        assert info == gpuzip.info(URL) and info.path == URL
        assert f"File: x.ezip | n: {N}" in str(info)
        assert memory.find("") == ["/folder/x.ezip"]
        assert memory.cat_file("/folder/x.ezip", None, None) == saved_with(codes, x)
    assert gpuzip.save(x, URL, m=4).codec == "pq" and gpuzip.info(URL).config["m"] == 4


def saved_with(codes: gpuzip.Codes, x: Tensor) -> bytes:
    out = io.BytesIO()
    codes.save(out, x)
    return out.getvalue()


class Cut(BaseException):
    """Something like KeyboardInterrupt."""


def failing(*_: Any, **__: Any) -> None:
    raise Cut


@pytest.mark.parametrize("step", ["put_file", "mv", "write", "cp_file"])
def test_an_interrupted_save_leaves_the_old_object(
    x: Tensor, memory: Any, monkeypatch: pytest.MonkeyPatch, step: str
):
    encoded("pq", x).save(URL)
    before = memory.cat_file("/folder/x.ezip", None, None)
    if step == "write":  # the upload stops in its middle
        from fsspec.implementations.memory import MemoryFile

        def write(self: Any, data: bytes) -> None:
            io.BytesIO.write(self, bytes(data)[:100])
            raise Cut

        monkeypatch.setattr(MemoryFile, "write", write, raising=False)
    else:
        monkeypatch.setattr(type(memory), step, failing)
    with pytest.raises(Cut):
        encoded("scalar", x).save(URL)
    monkeypatch.undo()
    assert memory.cat_file("/folder/x.ezip", None, None) == before
    assert memory.find("") == ["/folder/x.ezip"]


def test_object_stores_are_written_by_one_upload(x: Tensor, memory: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(type(memory), "protocol", ("s3", "memory"))
    monkeypatch.setattr(type(memory), "mv", failing)
    codes = encoded("pq", x)
    codes.save(URL)
    assert memory.cat_file("/folder/x.ezip", None, None) == saved(codes)


class Buffered(fsspec.AbstractFileSystem):  # type: ignore[misc, name-defined]
    """A store whose files are read by ranges, and written when they are closed, as that of the Hub is."""

    protocol = ("hf", "buffered")
    store: ClassVar[dict[str, bytes]] = {}
    read: ClassVar[list[tuple[int, int]]] = []

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if path not in self.store:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.store[path]), "type": "file"}

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        class File(buffered.AbstractBufferedFile):  # type: ignore[misc, name-defined]
            def _fetch_range(self, start: int, end: int) -> bytes:
                Buffered.read.append((start, end))
                return Buffered.store[path][start:end]

            def _upload_chunk(self, final: bool = False) -> bool:
                if final:
                    self.buffer.seek(0)
                    Buffered.store[path] = self.buffer.read()
                return False

        return File(self, path, mode, **kwargs)


def test_a_store_of_open_files_is_read_by_ranges_and_keeps_its_object(
    x: Tensor, monkeypatch: pytest.MonkeyPatch
):
    fsspec.register_implementation("buffered", Buffered, clobber=True)
    codes, url = encoded("scalar", x), "buffered://folder/x.ezip"
    data = in_blocks(codes, monkeypatch)
    codes.save(url)
    assert Buffered.store == {"folder/x.ezip": data}
    remote, (start, _) = gpuzip.open(url), places(data)["codes"]
    Buffered.read.clear()
    assert torch.equal(remote.rows([0, 47]), codes.rows([0, 47]))
    size = ROWS * D
    assert Buffered.read == [(start, start + size), (start + 2 * size, start + 3 * size)]
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", half_of_it)
        with pytest.raises(Cut):
            encoded("pq", x).save(url)
    assert Buffered.store == {"folder/x.ezip": data}


def half_of_it(source: Any, target: Any, length: int) -> None:
    target.write(source.read(500))
    raise Cut


def test_a_file_url_is_that_file(x: Tensor, tmp_path: Path):
    url, codes = f"file://{tmp_path}/new/x.ezip", encoded("pq", x)
    info = codes.save(url)
    assert info.path == tmp_path / "new" / "x.ezip" and info.path.read_bytes() == saved(codes)
    assert torch.equal(gpuzip.load(url), codes.decode())
    assert gpuzip.info(url) == info
    gpuzip.MixedCodes([codes]).save(tmp_path / "mixed")
    assert torch.equal(gpuzip.open(f"file://{tmp_path}/mixed").decode(), codes.decode())
    assert {p.name for p in info.path.parent.iterdir()} == {"x.ezip"}


def test_a_path_that_was_a_url_and_a_chain_are_urls(x: Tensor, memory: Any, tmp_path: Path):
    codes = encoded("pq", x)
    codes.save(Path(URL))
    assert torch.equal(gpuzip.load("memory:/folder/x.ezip"), codes.decode())
    codes.save(Path(f"file://{tmp_path}/x.ezip"))
    assert torch.equal(gpuzip.load(tmp_path / "x.ezip"), codes.decode())
    chain = f"simplecache::{URL}"
    assert torch.equal(gpuzip.open(chain).rows([3]), codes.rows([3]))


CALLS: dict[str, Callable[[str], Any]] = {
    "load": gpuzip.load,
    "open": gpuzip.open,
    "info": gpuzip.info,
    "load_codec": gpuzip.load_codec,
    "save": lambda url: gpuzip.save(torch.randn(64, 8), url, m=2, nbits=2),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_is_missing_or_unknown_is_named(memory: Any, monkeypatch: pytest.MonkeyPatch, call: str):
    with pytest.raises(gpuzip.GpuzipError, match="must be a URL that fsspec knows; Protocol not known: foo"):
        CALLS[call]("foo://a/x.ezip")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    named = r"memory://a is a URL, and fsspec is not installed: pip install 'gpuzip\[remote\]'"
    with pytest.raises(gpuzip.MissingDependencyError, match=named):
        CALLS[call]("memory://a")


@pytest.mark.parametrize("call", sorted(CALLS.keys() - {"save"}))
def test_no_file_and_a_folder_are_named(memory: Any, call: str):
    with pytest.raises(FileNotFoundError, match=r"there is no file memory://nothing"):
        CALLS[call]("memory://nothing")
    memory.pipe_file("/folder/x.ezip", b"x")
    with pytest.raises(IsADirectoryError, match=r"memory://folder must be a file; it is a folder"):
        CALLS[call]("memory://folder")


def test_a_folder_is_not_replaced(x: Tensor, memory: Any):
    memory.pipe_file("/folder/x.ezip", b"x")
    with pytest.raises(IsADirectoryError, match=r"save: memory://folder must be a file; it is a folder"):
        encoded("pq", x).save("memory://folder")
    assert memory.find("") == ["/folder/x.ezip"]


def test_what_is_secret_in_a_url_is_in_no_message():
    from gpuzip.storage.remote import remote

    pytest.importorskip("aiohttp")
    found = remote("open", "https://me:word@host/a/x.ezip?token=1")
    assert found is not None and not isinstance(found, Path)
    assert found.name == "https://host/a/x.ezip" and found.path.endswith("?token=1")


SHORT: dict[str, Callable[[bytes], bytes]] = {
    "short": lambda data: data[:-1],
    "long": lambda data: data + b"x",
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("lie", SHORT)
def test_a_range_of_another_length_is_an_os_error(
    x: Tensor, memory: Any, monkeypatch: pytest.MonkeyPatch, lie: str
):
    codes, cat_file = encoded("pq", x), type(memory).cat_file
    codes.save(URL)
    remote = gpuzip.open(URL)

    def lying(self: Any, path: str, start: int, end: int) -> bytes:
        return SHORT[lie](cat_file(self, path, start, end))

    monkeypatch.setattr(type(memory), "cat_file", lying)
    for read in (lambda: remote.rows([7]), remote.decode, lambda: gpuzip.open(URL)):
        with pytest.raises(OSError, match=rf"^{URL}: bytes \d+ to \d+ must be \d+; the server sent \d+\. Th"):
            read()
    monkeypatch.undo()
    assert torch.equal(remote.decode(), codes.decode())


def test_a_file_that_changes_gives_no_rows_of_another(
    x: Tensor, memory: Any, monkeypatch: pytest.MonkeyPatch
):
    codes = encoded("scalar", x)
    put(memory, in_blocks(codes, monkeypatch))
    remote = gpuzip.open(URL)
    first = remote.rows(range(60))
    put(memory, in_blocks(gpuzip.Codes(codes.codec, codes.data[:].flip(0)), monkeypatch))
    assert torch.equal(remote.rows(range(60)), first)
    with pytest.raises(gpuzip.FormatError, match="open it again if it was replaced"):
        remote.rows([60])
    put(memory, b"short")
    with pytest.raises(OSError, match="the server sent"):
        remote.rows([60])
    memory.rm_file("/folder/x.ezip")
    with pytest.raises(FileNotFoundError):
        remote.rows([60])


def test_timeouts_and_errors_of_a_filesystem_pass(x: Tensor, memory: Any, monkeypatch: pytest.MonkeyPatch):
    encoded("pq", x).save(URL)
    remote = gpuzip.open(URL)
    raised: list[Exception] = [TimeoutError("slow"), PermissionError("no"), RuntimeError("strange")]
    for error in raised:

        def fails(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(type(memory), "cat_file", fails)
        if isinstance(error, OSError):
            with pytest.raises(type(error), match=str(error)):
                remote.rows([0])
        else:
            with pytest.raises(
                OSError, match=re.escape(f"{URL}: cannot be reached (RuntimeError('strange'))")
            ):
                remote.rows([0])


def padded(text: str) -> str:
    return text + " " * (-len(text) % 8)


def test_a_header_is_held_to_what_safetensors_checks(x: Tensor, memory: Any):
    data = saved(encoded("pq", x))
    first = 8 + struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8:first]), data[first:]
    entry = header["codes"]
    start, stop = entry["data_offsets"]
    lies: list[dict[str, Any]] = [
        {"data_offsets": [start, stop - 1]},
        {"data_offsets": [start + 1, stop + 1]},
        {"data_offsets": [stop, start]},
        {"data_offsets": [start]},
        {"data_offsets": [-8, stop]},
        {"data_offsets": [0.0, stop]},
        {"shape": [1 << 32, 1 << 33]},
        {"shape": [-1, -(stop - start)]},
        {"shape": [0, 1 << 70]},
        {"shape": "203"},
        {"dtype": "F64"},
        {"dtype": None},
        {"more": 1},
    ]
    texts = [json.dumps(header | {"codes": entry | lie}) for lie in lies]
    texts += ["[]", "{", "{}", "[" * 50_000, json.dumps(header | {"__metadata__": [1]})]
    texts.append(json.dumps(header)[:-1] + f', "codes": {json.dumps(entry)}}}')
    put(memory, struct.pack("<Q", len(text := padded(json.dumps(header)))) + text.encode() + body)
    assert len(gpuzip.open(URL)) == N  # the same without a lie
    for text in map(padded, texts):
        put(memory, struct.pack("<Q", len(text)) + text.encode() + body)
        with pytest.raises(gpuzip.FormatError, match=rf"^{URL}: "):
            gpuzip.open(URL)


def test_a_header_that_claims_a_terabyte_takes_no_memory(x: Tensor, memory: Any, monkeypatch: Any):
    from tests.attacks.forge import Forgery, peak_growth

    forgery = Forgery.of(saved(encoded("scalar", x)))
    whole, size = forgery.bytes(), 1 << 40
    first = 8 + struct.unpack("<Q", whole[:8])[0]
    outer = json.loads(whole[8:first])
    begin, end = outer["codes"]["data_offsets"]
    grown = size - (end - begin)
    for name, entry in outer.items():
        if name == "codes":
            entry["shape"][0] = size // D
        if name != "__metadata__":
            entry["data_offsets"] = [at + grown * (at > begin) for at in entry["data_offsets"]]
    text = padded(json.dumps(outer))
    put(memory, struct.pack("<Q", len(text)) + text.encode() + whole[first:])
    told = 8 + len(text) + len(whole) - first + grown
    monkeypatch.setattr(type(memory), "info", lambda self, path: {"type": "file", "size": told})

    def attempt() -> None:
        with pytest.raises(gpuzip.FormatError, match="codes must be"):
            gpuzip.open(URL)

    assert peak_growth(attempt) < 16 << 20


def test_reserved_memory_is_used_when_it_is_written():
    from gpuzip.storage.remote_tensors import _reserved
    from tests.attacks.forge import peak_growth

    def few() -> None:
        tensor = _reserved(1 << 40)
        tensor[1 << 39] = 7
        assert int(tensor[1 << 39]) == 7 and not tensor[:4096].any()

    assert peak_growth(few) < 4 << 20
    assert np.asarray(_reserved(0)).shape == (0,)
