"""Files that embzip wrote, beside what FAISS makes of them."""

import collections
import io
import lzma
import pickle
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.interop.embzip import read_embzip

faiss = pytest.importorskip("faiss")


def written(
    m: int = 8, nbits: int = 4, n: int = 700, metric: int = 0, d: int = 32
) -> tuple[dict, np.ndarray]:
    """The dict that `embzip.save` pickles, and the rows that `embzip.load` returns."""
    x = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    index = faiss.index_factory(d, f"IDMap2,PQ{m}x{nbits}np", metric)
    index.train(x)
    index.add_with_ids(x, np.arange(n))
    codes = index.index.sa_encode(x)
    value = {"codes": codes, "index": index, "shape": torch.Size(x.shape), "m": m, "nbits": nbits}
    return value, np.asarray(index.index.sa_decode(codes))


def torch_saved(value: Any, legacy: bool = False) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


WAYS: dict[str, Callable[[dict], bytes]] = {
    "embzip": lambda value: lzma.compress(pickle.dumps(value)),
    **{f"pickle {number}": partial(pickle.dumps, protocol=number) for number in range(2, 6)},
    "lzma of torch.save": lambda value: lzma.compress(torch_saved(value)),
    "torch.save": torch_saved,
    "torch.save before 1.6": lambda value: torch_saved(value, legacy=True),
    "tensors": lambda value: torch_saved(value | {"codes": torch.from_numpy(value["codes"])}),
    "tensors before 1.6": lambda value: torch_saved(
        value | {"codes": torch.from_numpy(value["codes"])}, legacy=True
    ),
    "bytes": lambda value: pickle.dumps(value | {"index": faiss.serialize_index(value["index"]).tobytes()}),
    "array": lambda value: pickle.dumps(value | {"index": faiss.serialize_index(value["index"])}),
    "two tensors": lambda value: torch_saved(
        value
        | {
            "codes": torch.from_numpy(value["codes"]),
            "index": torch.from_numpy(faiss.serialize_index(value["index"])),
        }
    ),
    "numbers of numpy": lambda value: pickle.dumps(value | {"m": np.int64(8), "nbits": np.int64(4)}),
}


@pytest.fixture(scope="module")
def old() -> tuple[dict, np.ndarray]:
    return written()


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_saving_gives_the_rows_that_embzip_loads(old, tmp_path, way):
    value, rows = old
    path = tmp_path / "old.ezip"
    path.write_bytes(WAYS[way](value))
    codes = read_embzip(path)
    assert np.array_equal(codes.decode().numpy(), rows)
    assert codes.codec.config()["m"] == 8
    assert torch.equal(codes.data, torch.from_numpy(value["codes"]))


@pytest.mark.parametrize(("m", "nbits"), [(4, 8), (8, 5), (32, 1), (2, 12)])
def test_every_number_of_bits_and_both_metrics(tmp_path, m, nbits):
    value, rows = written(m, nbits, 5000 if nbits == 12 else 300, metric=m % 3 % 2)
    path = tmp_path / "old.ezip"
    path.write_bytes(WAYS["embzip"](value))
    assert np.array_equal(read_embzip(path).decode().numpy(), rows)


def test_names_of_every_build_of_faiss_and_numpy_are_known(old, tmp_path):
    value, rows = old
    data = pickle.dumps(value, 2)
    path = tmp_path / "old.pickle"
    loaded = type(value["index"]).__module__.encode()
    numpy = b"numpy._core" if b"numpy._core" in data else b"numpy.core"
    for build in (b"faiss.swigfaiss", b"faiss.swigfaiss_avx2", b"faiss.swigfaiss_avx512_spr", b"faiss"):
        for version in (b"numpy._core", b"numpy.core"):
            named = data.replace(b"c" + loaded + b"\n", b"c" + build + b"\n").replace(numpy, version)
            path.write_bytes(named)
            assert np.array_equal(read_embzip(path).decode().numpy(), rows)


def test_neither_faiss_nor_pickle_is_needed(old, tmp_path, monkeypatch):
    path = tmp_path / "old.ezip"
    path.write_bytes(WAYS["embzip"](old[0]))
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "Unpickler", None)
    monkeypatch.setattr(torch, "load", None)
    assert np.array_equal(read_embzip(path).decode().numpy(), old[1])


LIES: dict[str, tuple[Callable[[dict], dict], str]] = {
    "other codes": (lambda v: v | {"codes": v["codes"] ^ 1}, "codes must be those of its index"),
    "fewer codes": (lambda v: v | {"codes": v["codes"][:-1]}, "codes must be those of its index"),
    "flat codes": (lambda v: v | {"codes": v["codes"].ravel()}, "codes must be those of its index"),
    "floats": (lambda v: v | {"codes": v["codes"].astype("f4")}, "codes must be uint8"),
    "columns": (lambda v: v | {"codes": np.asfortranarray(v["codes"])}, "codes must be uint8 in order"),
    "shape": (lambda v: v | {"shape": torch.Size((700, 31))}, "its shape must be that of its index"),
    "m": (lambda v: v | {"m": 16}, "its m must be that of its index"),
    "nbits": (lambda v: v | {"nbits": True}, "its nbits must be that of its index"),
    "no index": (lambda v: {"codes": v["codes"]}, "must hold a dict of codes and an index"),
    "no codes": (lambda v: {"index": v["index"]}, "must hold a dict of codes and an index"),
    "a number": (lambda v: v | {"codes": 7}, "codes must be an array"),
    "another class": (lambda v: v | {"more": collections.Counter()}, "names collections.Counter, which"),
    "flat index": (lambda v: v | {"index": faiss.IndexFlatIP(8)}, "names faiss.*IndexFlatIP, which"),
    "flat in a map": (
        lambda v: v | {"index": faiss.IndexIDMap2(faiss.IndexFlatIP(32))},
        "its index|must be a FAISS index",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_embzip_does_not_write_is_refused_by_name(old, tmp_path, lie):
    change, match = LIES[lie]
    path = tmp_path / "old.ezip"
    path.write_bytes(lzma.compress(pickle.dumps(change(old[0]))))
    with pytest.raises(gpuzip.FormatError, match=rf"^{path}: .*{match}"):
        read_embzip(path)


def test_a_compressed_zip_is_refused(old, tmp_path):
    path = tmp_path / "old.pt"
    with zipfile.ZipFile(io.BytesIO(torch_saved(old[0]))) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(gpuzip.FormatError, match="is compressed, which"):
        read_embzip(path)


def test_a_file_cut_or_changed_anywhere_is_refused_or_read_right(old, tmp_path):
    value, rows = old
    path, generator = tmp_path / "old.pickle", np.random.default_rng(1)
    seen = set()
    for way in ("pickle 4", "torch.save", "tensors before 1.6"):
        whole = WAYS[way](value)
        for _ in range(60):
            data = bytearray(whole)
            if generator.random() < 0.3:
                del data[int(generator.integers(len(data))) :]
            else:
                data[int(generator.integers(len(data)))] ^= 1 << int(generator.integers(8))
            path.unlink(missing_ok=True)
            path.write_bytes(data)
            try:
                found = read_embzip(path)
                assert found.shape == rows.shape
                seen.add("read")
            except gpuzip.FormatError as error:
                seen.add("refused" if str(path) in str(error) else f"nameless {error!r}")
    assert seen == {"read", "refused"}  # centroids have no checksum
