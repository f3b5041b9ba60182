"""Matrices in files of other programs: what those programs write is read, and the other way round."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.interop.matrices import FORMATS, format_of, read_matrix, write_matrix

X = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)
WRITTEN = [name for name, format in FORMATS.items() if format.write is not None]


def texmex(rows: np.ndarray) -> bytes:
    """fvecs, bvecs or ivecs by a plain loop."""
    return b"".join(np.int32(len(row)).tobytes() + row.tobytes() for row in rows)


def values_for(name: str) -> np.ndarray:
    return (X * 10).clip(0, 255).round() if name == "bvecs" else X


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_is_read(tmp_path: Path, name: str):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    told: list[tuple[int, int]] = []
    path = tmp_path / f"x.{name}"
    nbytes = write_matrix(path, values_for(name), progress=lambda done, total: told.append((done, total)))
    assert nbytes == path.stat().st_size and told == [(300, 300)]
    assert np.array_equal(np.asarray(read_matrix(path)), values_for(name))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    stream = io.BytesIO()
    assert write_matrix(stream, values_for(name), format=name) == len(stream.getvalue())
    stream.seek(0)
    assert np.array_equal(np.asarray(read_matrix(stream, format=name)), values_for(name))


def test_numpy_and_safetensors_read_what_is_written(tmp_path: Path):
    from safetensors.numpy import load_file

    for name in ("npy", "npz", "safetensors"):
        write_matrix(tmp_path / f"x.{name}", X)
    assert np.array_equal(np.load(tmp_path / "x.npy"), X)
    assert np.array_equal(np.load(tmp_path / "x.npz")["x"], X)
    assert np.array_equal(load_file(tmp_path / "x.safetensors")["x"], X)


def test_what_numpy_and_safetensors_write_is_read_and_mapped(tmp_path: Path):
    from safetensors.numpy import save_file

    np.save(tmp_path / "f.npy", np.asfortranarray(X))
    np.save(tmp_path / "d.npy", X.astype(">f8"))
    np.savez(tmp_path / "two.npz", a=X, b=X[:3])
    np.savez_compressed(tmp_path / "small.npz", only=X)
    save_file({"x": X, "bias": X[0]}, tmp_path / "x.safetensors")
    for path in ("f.npy", "d.npy", "small.npz", "x.safetensors"):
        assert np.array_equal(np.asarray(read_matrix(tmp_path / path)), X), path
    two = read_matrix(tmp_path / "two.npz", name="b")
    assert np.array_equal(two, X[:3])
    for mapped in (two, read_matrix(tmp_path / "f.npy"), read_matrix(tmp_path / "d.npy")):
        assert isinstance(mapped, np.memmap)
    with pytest.raises(
        gpuzip.FormatError, match=r"two\.npz: one of its arrays must be named: a, b; got None"
    ):
        read_matrix(tmp_path / "two.npz")


def test_texmex_files_are_those_of_a_plain_loop(tmp_path: Path):
    whole = values_for("bvecs")
    kinds: dict[str, np.ndarray] = {"fvecs": X, "bvecs": whole.astype(np.uint8)}
    for name, rows in (kinds | {"ivecs": whole.astype(np.int32)}).items():
        (tmp_path / f"x.{name}").write_bytes(texmex(rows))
        assert np.array_equal(read_matrix(tmp_path / f"x.{name}"), rows.astype(np.float32))
    out = io.BytesIO()
    write_matrix(out, X, format="fvecs")
    assert out.getvalue() == texmex(X)
    with pytest.raises(gpuzip.GpuzipError, match="whole numbers from 0 to 255 for bvecs"):
        write_matrix(io.BytesIO(), X, format="bvecs")
    with pytest.raises(gpuzip.GpuzipError, match="ivecs files are only read"):
        write_matrix(tmp_path / "x.ivecs", X)


def test_parquet_columns_of_lists(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    fixed = pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), 12)
    table = pa.table({"id": list(range(300)), "fixed": fixed, "lists": X.astype(np.float64).tolist()})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=70)
    for column in ("fixed", "lists"):
        assert np.array_equal(read_matrix(tmp_path / "x.parquet", name=column), X)
    with pytest.raises(gpuzip.FormatError, match="one of its columns of lists must be named: fixed, lists"):
        read_matrix(tmp_path / "x.parquet")
    uneven = pa.table({"x": [[1.0, 2.0], [3.0]]})
    parquet.write_table(uneven, tmp_path / "uneven.parquet")
    with pytest.raises(gpuzip.GpuzipError, match="numbers, as many in each"):
        read_matrix(tmp_path / "uneven.parquet")


def test_bfloat16_goes_through_safetensors_as_it_is_and_through_npy_as_float32(tmp_path: Path):
    x = torch.from_numpy(X).bfloat16()
    write_matrix(tmp_path / "x.safetensors", x)
    back = read_matrix(tmp_path / "x.safetensors")
    assert isinstance(back, torch.Tensor) and back.dtype == torch.bfloat16 and torch.equal(back, x)
    write_matrix(tmp_path / "x.npy", x)
    assert np.array_equal(np.load(tmp_path / "x.npy"), x.float().numpy())


def test_codes_are_decoded_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpuzip.interop.matrices.blocks.BLOCK_BYTES", 4 * 12 * 100)
    x = torch.from_numpy(X)
    codes = gpuzip.ScalarQuantizer().fit(x).encode(x)
    mixed = gpuzip.MixedCodes([codes[:200], gpuzip.HalfQuantizer().fit(x).encode(x[200:])])
    told: list[int] = []
    write_matrix(tmp_path / "x.npy", codes, progress=lambda done, total: told.append(done))
    assert told == [100, 200, 300] and np.array_equal(np.load(tmp_path / "x.npy"), codes.decode().numpy())
    write_matrix(tmp_path / "x.npy", mixed)
    assert np.array_equal(np.load(tmp_path / "x.npy"), mixed.decode().numpy())


def lying_npz(path: Path, **changed: int) -> None:
    """A zip whose npy header claims more rows than it has."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 12)})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", head.getvalue() + X.tobytes())


def test_files_that_lie_are_refused_before_memory_is_spent(tmp_path: Path):
    np.save(tmp_path / "x.npy", X)
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-4])
    (tmp_path / "huge.npy").write_bytes(whole.replace(b"(300, 12)", b"(9**9,12)"))
    lying_npz(tmp_path / "huge.npz")
    (tmp_path / "x.fvecs").write_bytes(texmex(X)[:-4])
    rows = bytearray(texmex(X))
    rows[7 * 52] = 13
    (tmp_path / "uneven.fvecs").write_bytes(rows)
    (tmp_path / "zero.fvecs").write_bytes(bytes(64))
    for path, why in {
        "cut.npy": r"must have 14,400 bytes of values for shape \(300, 12\); it has 14,396",
        "huge.npy": "cannot be read as npy",
        "huge.npz": r"x\.npy must have 48,000,000,000 bytes",
        "x.fvecs": r"the first has 12 values, which does not divide 15,596 bytes",
        "uneven.fvecs": r"rows must have 12 values each; row 7 has 13",
        "zero.fvecs": "the first has 0 values",
    }.items():
        with pytest.raises(gpuzip.FormatError, match=why):
            read_matrix(tmp_path / path)


def test_other_files_are_refused_by_name(tmp_path: Path):
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(gpuzip.FormatError, match=r"cube\.npy: must hold a matrix \(N, D\); it holds shape"):
        read_matrix(tmp_path / "cube.npy")
    with pytest.raises(gpuzip.FormatError, match="is a pickle of Python objects"):
        read_matrix(tmp_path / "objects.npy")
    with pytest.raises(gpuzip.GpuzipError, match=r"must end in one of \.npy, \.npz, .*; got 'x\.csv'"):
        format_of(tmp_path / "x.csv")
    with pytest.raises(IsADirectoryError, match="must be a file; it is a folder"):
        read_matrix(tmp_path, format="npy")
    with pytest.raises(gpuzip.FormatError, match="must begin as npy, npz, parquet, arrow or hdf5"):
        read_matrix(io.BytesIO(b"12345678"))


@pytest.mark.parametrize("name", WRITTEN)
def test_no_rows(tmp_path: Path, name: str):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    write_matrix(tmp_path / f"x.{name}", X[:0])
    assert len(read_matrix(tmp_path / f"x.{name}")) == 0
