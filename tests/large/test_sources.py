"""Files of every format and chunks of programs are read from any row on; those that lie are refused."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.interop.matrices import write_matrix
from gpuzip.interop.matrices.formats import find_matrix
from gpuzip.large.files import of_files
from gpuzip.large.sampling import Reservoir, is_cheaper_by_rows, sample_ids
from gpuzip.large.source import Source, of_chunks, of_matrix, recut
from tests.attacks.forge import check_refused

X = np.random.default_rng(0).standard_normal((500, 12)).astype(np.float32)
WHO = "compress_file"


def arrow(path: Path, stream: bool, fixed: bool) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.ipc

    kind = pa.list_(pa.float32(), 12) if fixed else pa.list_(pa.float32())
    table = pa.table({"id": range(500), "x": pa.array(X.tolist(), kind)})
    opened = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with opened(str(path), table.schema) as out:
        out.write_table(table, max_chunksize=90)


def parquet(path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    kind = pa.list_(pa.float32(), 12)
    table = pa.table({"id": range(500), "x": pa.array(X.tolist(), kind)})
    pyarrow.parquet.write_table(table, path, row_group_size=70)


def hdf5(path: Path, **options: Any) -> None:
    h5py = pytest.importorskip("h5py", reason="needs the extra hdf5")
    with h5py.File(path, "w") as file:
        file.create_group("inside").create_dataset("x", data=X, **options)


WRITERS: dict[str, Callable[[Path], object]] = {
    "c.npy": lambda path: np.save(path, X),
    "fortran.npy": lambda path: np.save(path, np.asfortranarray(X)),
    "big.npy": lambda path: np.save(path, X.astype(">f4")),
    "stored.npz": lambda path: np.savez(path, x=X),
    "packed.npz": lambda path: np.savez_compressed(path, x=X),
    "x.safetensors": lambda path: write_matrix(path, X),
    "x.fvecs": lambda path: write_matrix(path, X),
    "x.parquet": parquet,
    "file.arrow": lambda path: arrow(path, False, True),
    "stream.arrow": lambda path: arrow(path, True, True),
    "lists.feather": lambda path: arrow(path, False, False),
    "x.h5": hdf5,
    "chunked.hdf5": lambda path: hdf5(path, chunks=(33, 12), compression="gzip"),
}


def rows(source: Source, start: int, step: int) -> np.ndarray:
    found = [chunk.numpy() for chunk in source.each(start, step)]
    return np.concatenate(found) if found else X[:0]


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_read_from_any_row_on(tmp_path: Path, name: str):
    WRITERS[name](tmp_path / name)
    source = of_files(WHO, tmp_path / name, None, None)
    assert (source.n, source.d, source.dtype) == (500, 12, torch.float32)
    for start, step in [(0, 500), (0, 7), (70, 100), (333, 64), (499, 1), (500, 10)]:
        assert np.array_equal(rows(source, start, step), X[start:])
    ids = np.array([0, 1, 2, 77, 400, 499])
    if source.rows is not None:
        assert np.array_equal(source.rows(ids).numpy(), X[ids])
    in_order = ("parquet", "arrow", "feather", "h5", "hdf5")
    assert (source.rows is None) == (name.split(".")[1] in in_order or name in ("fortran.npy", "packed.npz"))


def test_bytes_and_whole_numbers_of_texmex_become_float32(tmp_path: Path):
    whole = (X * 10).clip(0, 255).round()
    write_matrix(tmp_path / "x.bvecs", whole)
    ivecs = b"".join(np.int32(12).tobytes() + row.astype("<i4").tobytes() for row in whole)
    (tmp_path / "x.ivecs").write_bytes(ivecs)
    for name in ("x.bvecs", "x.ivecs"):
        source = of_files(WHO, tmp_path / name, None, None)
        assert source.dtype == torch.float32 and np.array_equal(rows(source, 3, 100), whole[3:])


def test_bfloat16_stays(tmp_path: Path):
    x = torch.from_numpy(X).bfloat16()
    write_matrix(tmp_path / "x.safetensors", x)
    source = of_files(WHO, tmp_path / "x.safetensors", None, None)
    assert source.dtype == torch.bfloat16 and source.rows is not None
    assert torch.equal(torch.cat(list(source.each(100, 50))), x[100:])
    assert torch.equal(source.rows(np.array([5, 450])), x[[5, 450]])


def test_files_of_a_folder_are_joined_by_name_and_those_of_a_list_in_order(tmp_path: Path):
    np.save(tmp_path / "b.npy", X[200:])
    write_matrix(tmp_path / "a.fvecs", X[:200])
    (tmp_path / "readme.txt").write_text("no rows")
    for src in (tmp_path, [tmp_path / "a.fvecs", tmp_path / "b.npy"]):
        source = of_files(WHO, src, None, None)
        assert np.array_equal(rows(source, 150, 60), X[150:])
        assert source.rows is not None
        assert np.array_equal(source.rows(np.array([3, 199, 200, 499])).numpy(), X[[3, 199, 200, 499]])
    np.save(tmp_path / "c.npy", X[:, :5])
    with pytest.raises(gpuzip.GpuzipError, match=r"all files must have 12 columns of float32, as .*a\.fvecs"):
        of_files(WHO, tmp_path, None, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(gpuzip.GpuzipError, match="must hold files of rows"):
        of_files(WHO, tmp_path / "empty", None, None)


def test_chunks_come_once_or_anew():
    parts = [X[:100], torch.from_numpy(X[100:130]), X[130:130], X[130:].tolist()]
    for src, once in ((iter(parts), True), (parts, False), (lambda: iter(parts), False)):
        source = of_chunks(WHO, src)
        assert source.once == once and source.n is None and source.d == 12
        assert np.array_equal(rows(source, 110, 1), X[110:])
        if not once:
            assert np.array_equal(rows(source, 0, 1), X)
    assert np.array_equal(rows(of_matrix(WHO, X), 490, 3), X[490:])


@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        ([X, X[:, :3]], "all chunks must have 12 columns of torch.float32, as the first one; got 3"),
        ([X, X.astype(np.float64)], "got 12 of torch.float64"),
        ([X[0]], "must be 2-D"),
        ([np.ones((3, 4), int)], "must be float16"),
        ([], "must have at least one row"),
        (5, "chunks of rows; got int"),
        (lambda: "text", "chunks of rows; got str"),
    ],
)
def test_chunks_that_do_not_fit_are_refused(chunks: Any, why: str):
    with pytest.raises(gpuzip.GpuzipError, match=why):
        rows(of_chunks(WHO, chunks), 0, 1)


def test_pieces_have_the_lengths_that_are_asked_for():
    chunks = [torch.arange(start, start + n) for start, n in ((0, 3), (3, 0), (3, 9), (12, 1))]
    pieces = [piece.tolist() for piece in recut(chunks, iter([4, 4, 2, 9, 9]))]
    assert pieces == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11, 12]]


@pytest.mark.parametrize("count", [1, 7, 120, 500, 900])
def test_a_sample_is_that_of_the_least_numbers_whatever_the_chunks(count: int):
    drawn = np.random.default_rng(3).random(500)
    truth = np.sort(np.argsort(drawn)[:count])
    assert np.array_equal(sample_ids(500, count, 3), truth)
    for step in (1, 13, 250, 500):
        sample = Reservoir(count, 3, 12, torch.float32)
        for start in range(0, 500, step):
            sample.add(torch.from_numpy(X[start : start + step]))
        assert sample.seen == 500 and np.array_equal(sample.rows().numpy(), X[truth])


def test_every_row_is_as_likely_to_be_in_a_sample():
    counts = np.bincount(np.concatenate([sample_ids(40, 10, seed) for seed in range(1000)]), minlength=40)
    assert abs(counts - 250).max() < 5 * (1000 * 0.25 * 0.75) ** 0.5  # five standard deviations
    assert is_cheaper_by_rows(5_000_000, 65_536, 1536) and not is_cheaper_by_rows(100_000, 65_536, 1536)


def test_dtypes_that_are_no_floats_and_other_names_are_refused(tmp_path: Path):
    np.save(tmp_path / "i.npy", np.ones((3, 4), np.int64))
    np.save(tmp_path / "t.npy", np.full((3, 4), "text"))
    for name in ("i.npy", "t.npy"):
        with pytest.raises(gpuzip.DtypeError, match="must hold float16"):
            of_files(WHO, tmp_path / name, None, None)
    np.savez(tmp_path / "two.npz", a=X, b=X)
    with pytest.raises(gpuzip.FormatError, match="one of its arrays must be named: a, b"):
        of_files(WHO, tmp_path / "two.npz", None, None)
    assert of_files(WHO, tmp_path / "two.npz", "b", None).n == 500


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path: Path):
    np.save(tmp_path / "x.npy", X)
    source = of_files(WHO, tmp_path / "x.npy", None, None)
    with open(tmp_path / "x.npy", "rb+") as file:
        file.truncate(5000)
    with pytest.raises(gpuzip.FormatError, match="ends before its last row"):
        rows(source, 0, 100)


def test_arrow_and_parquet_with_nulls_or_uneven_lists_are_refused(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    for name, column in {"nulls": [[1.0, 2.0], None], "uneven": [[1.0, 2.0], [3.0]]}.items():
        table = pa.table({"x": pa.array(column, pa.list_(pa.float32()))})
        pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
        with pa.ipc.new_file(str(tmp_path / f"{name}.arrow"), table.schema) as out:
            out.write_table(table)
        for kind in ("parquet", "arrow"):
            with pytest.raises(gpuzip.GpuzipError, match=r"values|numbers"):
                rows(of_files(WHO, tmp_path / f"{name}.{kind}", None, None), 0, 10)


HDF5 = [pytest.param(name, marks=pytest.mark.full) for name in ("x.h5", "chunked.hdf5")]


def find(path: Path) -> object:
    return list(find_matrix(path, who=WHO).each(0, 100))


@pytest.mark.parametrize("name", ["file.arrow", "stream.arrow", "x.parquet", *HDF5])
def test_a_file_changed_or_cut_anywhere_is_read_or_refused(tmp_path: Path, name: str):
    WRITERS[name](tmp_path / name)
    whole, path = (tmp_path / name).read_bytes(), tmp_path / f"changed{name}"
    generator, seen = np.random.default_rng(0), set()
    for _ in range(60):
        data = bytearray(whole)
        if generator.random() < 0.3:
            del data[int(generator.integers(len(data))) :]
        for _ in range(3 if data else 0):
            data[int(generator.integers(len(data)))] ^= 1 << int(generator.integers(8))
        path.write_bytes(data)
        try:
            find(path)
            seen.add("read")
        except gpuzip.GpuzipError:
            seen.add("refused")
    assert "refused" in seen


def test_hdf5_that_points_elsewhere_or_lies_is_refused(tmp_path: Path):
    h5py = pytest.importorskip("h5py", reason="needs the extra hdf5")
    np.save(tmp_path / "secret.npy", X)
    hdf5(tmp_path / "other.h5")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["link"] = h5py.ExternalLink("other.h5", "/inside/x")
        file["soft"] = h5py.SoftLink("/huge")
        file.create_dataset("huge", (1 << 40, 384), "f4", chunks=(1, 384))
        file.create_dataset("packed", (1 << 40, 384), "f4", chunks=(1, 384), compression="gzip")
        file.create_dataset("raw", (500, 12), "f4", external=[(str(tmp_path / "secret.npy"), 128, 24_000)])
        file.create_dataset("text", (3, 2), h5py.string_dtype())
        layout = h5py.VirtualLayout((500, 12), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "inside/x", (500, 12))
        file.create_virtual_dataset("virtual", layout)
    for name, why in {
        "link": "no link to one",
        "soft": "no link to one",
        "huge": "must have .* bytes of values",
        "packed": "must have .* bytes of values",
        "raw": "its values are in others",
        "virtual": "its values are in others",
        "text": "must hold numbers",
        "none": "must hold a dataset 'none'",
    }.items():
        check_refused(tmp_path / "x.h5", partial(find_matrix, name=name, who=WHO), why)
