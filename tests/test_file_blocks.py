"""Codes of an opened file are verified block by block, where they are read."""

import copy
import io
import json
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import Tensor

import gpuzip
from gpuzip._core.planes import Planes
from gpuzip.storage import blocks
from gpuzip.storage.blocks import table_bytes, table_of
from gpuzip.words import WordVectors

pytestmark = pytest.mark.filterwarnings("ignore:.*should have at least:UserWarning")

N, D = 203, 16
ROWS_PER_BLOCK = 20  # the last of 11 blocks has 3 rows


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[gpuzip.Codes], None]:
    """Makes blocks of 20 rows of these codes."""

    def of(codes: gpuzip.Codes) -> None:
        monkeypatch.setattr(blocks, "BLOCK_BYTES", ROWS_PER_BLOCK * codes.codec.code_size)

    return of


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each CRC that is computed."""
    sizes: list[int] = []

    def crc32(data: Any) -> int:
        sizes.append(data.nbytes)
        return zlib.crc32(data)

    monkeypatch.setattr(blocks, "zlib", SimpleNamespace(crc32=crc32))
    return sizes


CODECS: dict[str, Callable[[], gpuzip.Quantizer]] = {
    "pq": lambda: gpuzip.ProductQuantizer(m=8, nbits=4),
    "scalar": lambda: gpuzip.ScalarQuantizer(8),
    "half": gpuzip.HalfQuantizer,
    "binary": gpuzip.BinaryQuantizer,
    "residual": lambda: gpuzip.ResidualQuantizer(2, nbits=4),
    "lloydmax-mixed": lambda: gpuzip.MixedLloydMaxQuantizer(2.3),
    "rabitq": gpuzip.RaBitQuantizer,
    "rabitq-4": lambda: gpuzip.RaBitQuantizer(4),
}


def encoded(name: str, x: Tensor) -> gpuzip.Codes:
    return CODECS[name]().fit(x).encode(x)


def saved(codes: gpuzip.Codes) -> bytes:
    out = io.BytesIO()
    codes.save(out)
    return out.getvalue()


def flipped(data: bytes, row: int, plane: str = "codes") -> bytes:
    """One bit of a row changed."""
    size = struct.unpack("<Q", data[:8])[0]
    entry = json.loads(data[8 : 8 + size])[plane]
    at = 8 + size + entry["data_offsets"][0] + row * entry["shape"][1]
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def planes_of(data: bytes) -> list[str]:
    return sorted(name for name in load(data) if name.startswith("codes"))


def unverified(codes: gpuzip.Codes) -> object:
    return codes.packed._unverified


READERS: dict[str, Callable[[gpuzip.Codes, Tensor], Any]] = {
    "decode": lambda codes, x: codes.decode(),
    "rows": lambda codes, x: codes.rows(range(N)),
    "array": lambda codes, x: torch.from_numpy(np.asarray(codes)),
    "norms": lambda codes, x: codes.norms,
    "l2": lambda codes, x: codes.search(x[:3], 5, "l2")[1],
    "ip": lambda codes, x: codes.search(x[:3], 5, "ip")[0],
    "cosine": lambda codes, x: codes.search(x[:70], 5)[0],
    "quality": lambda codes, x: torch.tensor(codes.quality(x).mse),  # type: ignore[union-attr]
    "ids": lambda codes, x: codes[list(range(N))].decode(),
    "mask": lambda codes, x: codes[torch.ones(N, dtype=torch.bool)].decode(),
    "one by one": lambda codes, x: torch.cat([code.decode() for code in codes]),
    "slices": lambda codes, x: torch.cat([codes[at : at + 50].decode() for at in range(0, N, 50)]),
    "slice of a slice": lambda codes, x: torch.cat([codes[:7].decode(), codes[3:][4:].decode()]),
    "steps": lambda codes, x: torch.cat([codes[::2].decode(), codes[1::2].decode()]),
    "backwards": lambda codes, x: codes[::-1].decode(),
    "cat": lambda codes, x: gpuzip.cat([codes, codes]).decode(),
    "mixed": lambda codes, x: gpuzip.MixedCodes([codes]).decode(),
    "pickle": lambda codes, x: pickle.loads(pickle.dumps(codes)).decode(),
    "deepcopy": lambda codes, x: copy.deepcopy(codes).data[:],
    "to": lambda codes, x: codes.packed.to(torch.device("meta"), codes.codec.norms).raw[:].shape,
    "save": lambda codes, x: load(saved(codes))["codes"],
    "most_similar": lambda codes, x: torch.tensor(gpuzip.most_similar(3, codes, k=5)),
}


SLOW = ("one by one", "rabitq-4")
EVERY = [
    pytest.param(reader, name, marks=pytest.mark.full if (reader, name) == SLOW else ())
    for reader in READERS
    for name in ("scalar", "rabitq-4")
]
SCORED = [
    (reader, name)
    for reader in ("decode", "rows", "l2", "ip", "cosine")
    for name in set(CODECS) - {"scalar", "rabitq-4"}
]


@pytest.mark.parametrize(("reader", "name"), [*EVERY, *sorted(SCORED)])
def test_every_reader_finds_a_flipped_bit_in_every_block(
    x: Tensor, small_blocks: Callable, reader: str, name: str
):
    codes, read = encoded(name, x), READERS[reader]
    small_blocks(codes)
    data = saved(codes)
    right, found = read(codes, x), read(gpuzip.open(data), x)
    assert torch.equal(found, right) if isinstance(right, Tensor) else found == right
    planes = planes_of(data)
    for block in range(11):
        plane, first, last = planes[block % len(planes)], 20 * block, min(20 * block + 19, N - 1)
        damaged = gpuzip.open(flipped(data, min(first + block, last), plane))
        for _ in range(2):  # a block that does not match stays unverified
            with pytest.raises(gpuzip.FormatError, match=rf"^<bytes>: rows {first} to {last} of {plane} "):
                read(damaged, x)


def embedding(codes: gpuzip.Codes) -> Tensor:
    return gpuzip.nn.QuantizedEmbedding.from_codes(codes).rows(torch.arange(N))


def faiss_codes(codes: gpuzip.Codes) -> Any:
    faiss = pytest.importorskip("faiss")
    index = gpuzip.to_faiss(codes)
    array = index.xb if hasattr(index, "xb") else index.codes
    return faiss.vector_to_array(array).tolist()


def usearch_index(codes: gpuzip.Codes) -> Any:
    pytest.importorskip("usearch")
    return np.stack(gpuzip.to_usearch(codes).get(np.arange(N))).tolist()


def values_of(codes: gpuzip.Codes) -> Any:
    from gpuzip.plots import values

    return values.bits_of("", "", codes).tolist()


BINARY = gpuzip.BinaryQuantizer
ROTATED = {"rotation": gpuzip.Rotation("pca", dims=8)}
USERS: dict[str, tuple[Callable[[], gpuzip.Quantizer], Callable[[gpuzip.Codes], Any]]] = {
    "embedding": (lambda: gpuzip.LloydMaxQuantizer(4), embedding),
    "faiss": (lambda: gpuzip.ProductQuantizer(m=4, nbits=4), faiss_codes),
    "faiss, bits": (BINARY, faiss_codes),
    "usearch": (BINARY, usearch_index),
    "bits": (BINARY, lambda codes: gpuzip.to_sentence_transformers(codes, "ubinary").tolist()),
    "int8": (gpuzip.ScalarQuantizer, lambda codes: gpuzip.to_sentence_transformers(codes, "int8").tolist()),
    "plot": (BINARY, values_of),
    "hamming": (BINARY, lambda codes: gpuzip.most_similar(3, codes, k=2, metric="hamming")),
}


@pytest.mark.parametrize("user", USERS)
def test_what_hands_codes_to_others_finds_a_flipped_bit(x: Tensor, small_blocks: Callable, user: str):
    make, use = USERS[user]
    codes = make().fit(x).encode(x)
    small_blocks(codes)
    data = saved(codes)
    right, found = use(codes), use(gpuzip.open(data))
    assert torch.equal(found, right) if isinstance(right, Tensor) else found == right
    for row in (3, 100, N - 1):
        with pytest.raises(gpuzip.FormatError, match=r"<bytes>: rows .*checksum"):
            use(gpuzip.open(flipped(data, row)))


def test_a_store_of_codes_is_verified_where_candidates_are_read(x: Tensor, small_blocks: Callable):
    coarse, fine = encoded("binary", x), encoded("scalar", x)
    small_blocks(fine)
    data = saved(fine)
    right = coarse.search(x[7], 1, rescore=fine)
    assert right[1].tolist() == [7]
    assert torch.equal(coarse.search(x[7], 1, rescore=gpuzip.open(data))[0], right[0])
    with pytest.raises(gpuzip.FormatError, match="rows 0 to 19 of codes"):
        coarse.search(x[7], 1, rescore=gpuzip.open(flipped(data, 0)))


def test_a_folder_and_word_vectors_find_a_flipped_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Beyond the 4096 bytes at both ends of a file, which are verified when a folder is opened."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1600)
    x = torch.randn(2000, D, generator=torch.Generator().manual_seed(0))
    codes = gpuzip.MixedCodes([encoded("binary", x[:5]), encoded("scalar", x[5:])])
    words = WordVectors(map(str, range(2000)), codes)
    codes.save(tmp_path / "mixed")
    words.save(tmp_path / "words")
    for folder in ("mixed", "words"):
        path = next((tmp_path / folder).glob("part-1-*.ezip"))
        path.write_bytes(flipped(path.read_bytes(), 1000))
    names = [re.escape(path.name) for path in tmp_path.glob("*/part-1-*.ezip")]
    damaged = rf"({'|'.join(names)}): rows 1000 to 1099 of codes do not match"
    mixed, found = gpuzip.open(tmp_path / "mixed"), WordVectors.load(tmp_path / "words")
    assert torch.equal(mixed.rows([3, 1004, 1105]), codes.rows([3, 1004, 1105]))
    assert torch.equal(found.query(["3", "1004", "1105"]), words.query(["3", "1004", "1105"]))
    uses: list[Callable[[], object]] = [
        lambda: mixed.rows([3, 1005]),
        lambda: mixed[1005:1006],
        lambda: mixed.decode(),
        lambda: mixed.search(x[:2], 3),
        lambda: mixed.to("cpu").decode(),
        lambda: gpuzip.cat([mixed, mixed]),
        lambda: mixed.save(tmp_path / "again"),
        lambda: pickle.dumps(mixed),
        lambda: found.query("1104"),
        lambda: found.most_similar("3"),
        lambda: found.save(tmp_path / "again"),
    ]
    for use in uses:
        with pytest.raises(gpuzip.FormatError, match=damaged):
            use()
    for folder in ("mixed", "words"):
        with pytest.raises(gpuzip.FormatError, match="does not match its checksum in the manifest"):
            (gpuzip.open if folder == "mixed" else WordVectors.load)(tmp_path / folder, verify=True)


def test_rows_verifies_the_blocks_of_its_rows_alone(x: Tensor, small_blocks: Callable, counted: list[int]):
    codes = encoded("scalar", x)
    small_blocks(codes)
    data = flipped(saved(codes), 45)
    opened = gpuzip.open(data)
    counted.clear()
    assert torch.equal(opened.rows([3, 19, 100, -1]), codes.rows([3, 19, 100, -1]))
    assert counted == [20 * D, 20 * D, 3 * D]
    opened.rows([0, 110, 202])
    assert len(counted) == 3
    opened.rows([])
    assert len(counted) == 3
    for _ in range(2):
        with pytest.raises(gpuzip.FormatError, match="rows 40 to 59 of codes do not match their checksum"):
            opened.rows([3, 130, 59])
    assert counted[3:] == [20 * D] * 3  # the block of row 130 once
    assert torch.equal(opened.rows([130, 60]), codes.rows([130, 60]))


def test_all_is_verified_once(x: Tensor, small_blocks: Callable, counted: list[int]):
    codes = encoded("half", x)
    small_blocks(codes)
    data = saved(codes)
    counted.clear()
    opened = gpuzip.open(data)
    assert counted == [] and unverified(opened) is not None
    opened.rows([50])
    opened.search(x[:2], 3)
    assert sum(counted) == codes.data.nbytes and unverified(opened) is None
    opened.search(x[:2], 3)
    opened.decode()
    assert sum(counted) == codes.data.nbytes
    counted.clear()
    assert unverified(gpuzip.open(data, verify=True)) is None
    assert sum(counted) == codes.data.nbytes
    gpuzip.load(data)
    assert sum(counted) == 2 * codes.data.nbytes


def test_opening_and_looking_reads_no_codes(x: Tensor, small_blocks: Callable, counted: list[int]):
    codes = encoded("scalar", x)
    small_blocks(codes)
    data = saved(codes)
    counted.clear()
    opened = gpuzip.open(data)
    assert opened.shape == opened.to("cpu").shape == opened.data.shape == (N, D)
    assert repr(opened) == repr(codes) and opened.nbytes == codes.nbytes and opened.ratio == codes.ratio
    assert opened[5:10].shape == opened[5:][:5].shape == (5, D)
    assert gpuzip.load_codec(data).d == D and gpuzip.info(data).n == N
    assert counted == []


def test_slices_share_what_was_verified(x: Tensor, small_blocks: Callable, counted: list[int]):
    codes = encoded("scalar", x)
    small_blocks(codes)
    opened = gpuzip.open(saved(codes))
    counted.clear()
    part = opened[30:90][5:]  # rows 35 to 89: blocks 1 to 4
    assert counted == []
    assert torch.equal(part.decode(), codes.decode()[35:90])
    assert sum(counted) == 80 * D and unverified(part) is None
    opened[30:90].search(x[:2], 3)
    opened.rows([20, 99])
    opened.to("cpu")[40].decode()
    assert sum(counted) == 80 * D
    assert len(opened[90:90].decode()) == len(opened[300:].decode()) == 0
    opened.decode()
    assert sum(counted) == N * D


def test_damage_outside_of_a_slice_is_not_read(x: Tensor, small_blocks: Callable):
    codes = encoded("scalar", x)
    small_blocks(codes)
    opened = gpuzip.open(flipped(saved(codes), 45))
    assert torch.equal(opened[60:].decode(), codes.decode()[60:])
    assert torch.equal(opened[60:].search(x[:3], 4)[0], codes[60:].search(x[:3], 4)[0])
    with pytest.raises(gpuzip.FormatError, match="rows 40 to 59"):
        opened[59:].decode()


def test_a_plane_is_verified_where_it_is_read(x: Tensor, small_blocks: Callable, counted: list[int]):
    codes = encoded("rabitq-4", x)
    small_blocks(codes)
    sizes = [part.nbytes for part in cast(Planes, codes.data).parts]
    data = saved(codes)
    opened = gpuzip.open(data)
    counted.clear()
    opened.search(x[:3], 3, "hamming")
    assert sum(counted) == sizes[0]
    query: dict[str, Any] = {"k": 1, "rescore": True, "rescore_multiplier": 1, "candidates": "plane"}
    right = codes.search(x[50], **query)
    counted.clear()
    found = opened.search(x[50], **query)
    assert [part.tolist() for part in found] == [part.tolist() for part in right] and found.ids == 50
    assert sum(counted) == sizes[1] + sizes[3] + 20 * sizes[2] // N
    opened.search(x[50], 1)
    assert sum(counted) == sum(sizes[1:]) and unverified(opened) is None
    damaged = gpuzip.open(flipped(data, 33, "codes.2"))
    assert damaged.search(x[50], **query).ids == 50
    with pytest.raises(gpuzip.FormatError, match=r"rows 20 to 39 of codes\.2"):
        damaged.search(x[33], **query)


def test_threads_may_verify_the_same_blocks(x: Tensor, small_blocks: Callable):
    codes = encoded("scalar", x)
    small_blocks(codes)
    data = saved(codes)
    right, damaged = codes.decode(), gpuzip.open(flipped(data, 45))

    def rows(opened: gpuzip.Codes, start: int) -> Tensor:
        return opened.rows(range(start, start + 40))

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            opened = gpuzip.open(data)
            for start, found in enumerate(pool.map(lambda at, o=opened: rows(o, at), range(100))):
                assert torch.equal(found, right[start : start + 40])
        caught = [pool.submit(rows, damaged, at).exception() for at in range(100)]
    assert [error is not None for error in caught] == [at + 39 >= 40 and at < 60 for at in range(100)]


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("name", CODECS)
def test_files_of_no_row_and_of_one(x: Tensor, name: str, n: int):
    codes = encoded(name, x)[:n]
    data = saved(codes)
    opened = gpuzip.open(io.BytesIO(data))
    assert torch.equal(opened.decode(), codes.decode()) and unverified(opened) is None
    assert load(data)["crc32"].shape == (n, len(planes_of(data)), 4)
    if n:
        with pytest.raises(gpuzip.FormatError, match="<BytesIO>: rows 0 to 0 of"):
            gpuzip.open(io.BytesIO(flipped(data, 0, planes_of(data)[-1]))).decode()


@pytest.mark.parametrize("name", CODECS)
def test_the_table_is_that_of_zlib(x: Tensor, small_blocks: Callable, name: str):
    codes = encoded(name, x)
    small_blocks(codes)
    data = saved(codes)
    tensors, table = load(data), load(data)["crc32"].numpy().view("<u4")[:, :, 0]
    for i, plane in enumerate(planes_of(data)):
        rows = tensors[plane].numpy()
        right = [zlib.crc32(rows[at : at + 20].tobytes()) for at in range(0, N, 20)]
        assert table[:, i].tolist() == right
    assert list(tensors["crc32"].shape) == [11, len(planes_of(data)), 4]


def test_blocks_hold_as_many_rows_as_fit_and_at_least_one(x: Tensor, monkeypatch: pytest.MonkeyPatch):
    codes = encoded("half", x)
    for size, rows in ((1, 1), (31, 1), (32, 1), (63, 1), (64, 2), (10**9, 31250000)):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
        data = saved(codes)
        assert json.loads(data[8:].split(b"block_rows")[1][3:].split(b",")[0]) == rows
        assert torch.equal(gpuzip.load(data), codes.decode())
        assert torch.equal(gpuzip.open(data).rows([5, 99]), codes.rows([5, 99]))


@pytest.mark.parametrize("planes", [1, 4])
@pytest.mark.parametrize("row_bytes", [4, 5, 63, 64, 65, 100, 1000])
def test_the_bound_of_a_table_holds(monkeypatch: pytest.MonkeyPatch, planes: int, row_bytes: int):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 64)
    sizes = [row_bytes - 3 * (planes == 4), *[1] * (planes - 1)]
    for n in (0, 1, 2, 15, 16, 17, 300):
        parts = [torch.zeros((n, size), dtype=torch.uint8) for size in sizes]
        table = table_of(parts, blocks.rows_per_block(row_bytes))
        assert table.nbytes <= 256 + table_bytes(n * row_bytes)
