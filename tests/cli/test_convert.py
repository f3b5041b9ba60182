"""Files of FAISS, USearch, smallfry and embzip, by their own packages."""

import json
import lzma
import pickle
import pickletools

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.interop.embzip import read_embzip
from gpuzip.interop.matrices import read_matrix


def test_matrices_of_any_format_become_another(folder, gpuzip_run):
    x = np.load("x.npy")
    for source, target in (("x.npy", "x.fvecs"), ("x.fvecs", "x.safetensors"), ("x.safetensors", "y.npz")):
        done = gpuzip_run("convert", source, target, "--json")
        assert done.code == 0, done.err
        said = json.loads(done.out)
        assert (said["from"], said["to"], said["n"]) == (source[2:], target[2:], 400)
        assert np.array_equal(np.asarray(read_matrix(target)), x)


def test_faiss_indexes_both_ways(folder, gpuzip_run):
    faiss = pytest.importorskip("faiss")
    x = np.load("x.npy")
    for spec in ("PQ4x4", "SQ8", "Binary"):
        codes = gpuzip.from_spec(spec).fit_quietly(x).encode(x)
        codes.save("x.ezip")
        done = gpuzip_run("convert", "x.ezip", "x.faiss")
        assert done.code == 0, done.err
        read = faiss.read_index_binary if spec == "Binary" else faiss.read_index
        assert read("x.faiss").ntotal == 400
        assert gpuzip_run("convert", "x.faiss", "y.ezip").code == 0
        assert torch.equal(gpuzip.open("y.ezip").data[:], codes.data)
    (folder / "bad.faiss").write_bytes(b"nothing like an index")
    done = gpuzip_run("convert", "bad.faiss", "y.ezip")
    assert done.code == 1 and "bad.faiss: cannot be read as a faiss index" in done.err


def test_usearch_indexes_both_ways(folder, gpuzip_run):
    pytest.importorskip("usearch")
    x = np.load("x.npy")
    gpuzip.BinaryQuantizer().fit(x).encode(x).save("x.ezip")
    assert gpuzip_run("convert", "x.ezip", "x.usearch").code == 0
    assert gpuzip_run("convert", "x.usearch", "y.ezip").code == 0
    assert torch.equal(gpuzip.open("y.ezip").data[:], gpuzip.open("x.ezip").data[:])
    assert not list(folder.glob(".*"))


def saved_by_embzip(path, x: np.ndarray, m: int) -> np.ndarray:
    """What `embzip.save` does, and the rows that its `load` returns."""
    faiss = pytest.importorskip("faiss")
    index = faiss.index_factory(x.shape[1], f"IDMap2,PQ{m}x4np", faiss.METRIC_INNER_PRODUCT)
    index.train(x)
    index.add_with_ids(x, np.arange(len(x)))
    codes = index.index.sa_encode(x)
    with lzma.open(path, "wb") as file:
        pickle.dump({"codes": codes, "index": index, "shape": x.shape, "m": m, "nbits": 4}, file)
    return np.asarray(index.index.sa_decode(codes))


def test_embzip_files_decode_to_the_rows_that_embzip_loads(folder, gpuzip_run):
    rows = saved_by_embzip("old.ezip", np.load("x.npy"), 8)
    done = gpuzip_run("convert", "old.ezip", "new.ezip", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["from"] == "embzip"
    assert np.allclose(gpuzip.load("new.ezip").numpy(), rows, atol=1e-6)
    assert gpuzip.info("new.ezip").config["m"] == 8


def test_a_pickle_of_embzip_is_never_run(folder, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (open, (str(folder / "ran"), "w"))

    with lzma.open("evil.ezip", "wb") as file:
        pickle.dump({"index": Evil()}, file)
    with lzma.open("evil.ezip") as packed:
        assert any(opcode.name == "REDUCE" for opcode, _, _ in pickletools.genops(packed.read()))
    with pytest.raises(gpuzip.FormatError, match=r"its pickle names (_?io\.open)"):
        read_embzip("evil.ezip")
    assert not (folder / "ran").exists()
    monkeypatch.setattr("gpuzip.interop.embzip._FLOOR", 1000)
    with lzma.open("bomb.ezip", "wb") as file:
        file.write(bytes(1 << 20))
    with pytest.raises(gpuzip.FormatError, match="must unpack to at most"):
        read_embzip("bomb.ezip")
    (folder / "cut.ezip").write_bytes((folder / "evil.ezip").read_bytes()[:-20])
    with pytest.raises(gpuzip.FormatError, match=r"cut\.ezip: cannot be read as embzip's"):
        read_embzip("cut.ezip")


def test_smallfry_folders(folder, gpuzip_run):
    from gpuzip.interop import smallfry

    x = np.load("x.npy")
    lines = (f"w{i} {' '.join(map(repr, row))}" for i, row in enumerate(x.tolist()))
    (folder / "words.txt").write_text("\n".join(lines))
    words = smallfry.compress("words.txt", "words.sfry", R=2, word_rep="list")
    assert gpuzip_run("convert", "words.sfry", "w.ezip").code == 0
    assert torch.equal(gpuzip.load("w.ezip"), words.codes.decode())
