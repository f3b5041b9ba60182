"""Files of matrices whose headers lie: refused by name, before memory is spent."""

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

import gpuzip
from gpuzip.interop.matrices import read_matrix
from tests.attacks.forge import check_refused, peak_growth


def npy(header: str, body: bytes = bytes(64), version: int = 1, length: int | None = None) -> bytes:
    text = header.encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + body


def described(shape: object, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


NPY: dict[str, bytes] = {
    "a negative shape": npy(described("(-1, 4)")),
    "two negative sizes": npy(described("(-4, -4)")),
    "no rows of 2**70": npy(described((0, 1 << 70))),
    "2**124 values": npy(described((1 << 62, 1 << 62))),
    "a terabyte": npy(described((1 << 38, 1))),
    "values of no bytes": npy(described((1 << 40, 4), "'|V0'")),
    "text of no bytes": npy(described((1 << 62, 4), "'<U0'")),
    "a record of no fields": npy(described((2, 2), "{}")),
    "a record of 4 GB": npy(described((2, 2), "[('a', '<f4', (1000000000,))]")),
    "objects": npy(described((2, 2), "'O'")),
    "objects inside": npy(described((2, 2), "[('a', 'O')]")),
    "truths for sizes": npy(described("(True, 16)")),
    "a thousand sizes": npy(described((1,) * 1000)),
    "deep brackets": npy("(" * 9000),
    "deep signs": npy("-" * 9000 + "1"),
    "code": npy("__import__('os').system('touch x')"),
    "zeros": npy("\0" * 60),
    "a header of 4 GB": npy("", bytes(64), 2, (1 << 32) - 1),
    "a header longer than the file": npy("{", b"", 1, 60_000),
    "another version": npy(described((4, 4)), version=9),
    "cut": npy(described((4, 5))),
}


@pytest.mark.parametrize("name", NPY)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_arrays_that_lie_are_refused(tmp_path: Path, name: str, suffix: str):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(NPY[name])
    if suffix == "npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", NPY[name])
    check_refused(path, read_matrix)


def test_no_rows_of_many_columns_take_no_memory(tmp_path: Path):
    (tmp_path / "x.npy").write_bytes(npy(described((0, 1 << 40)), b""))
    assert peak_growth(lambda: read_matrix(tmp_path / "x.npy")) < 4 << 20


def zipped(kind: int, content: bytes) -> bytearray:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        archive.writestr("x.npy", content)
    return bytearray(out.getvalue())


@pytest.mark.full
def test_a_header_that_is_a_bomb_is_not_unpacked(tmp_path: Path):
    path = tmp_path / "x.npz"
    path.write_bytes(zipped(zipfile.ZIP_DEFLATED, npy("", bytes(300 << 20), 2, (1 << 32) - 1)))
    check_refused(path, read_matrix, "its header says that it has 4294967295 bytes")


@pytest.mark.parametrize("kind", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_compressions_that_numpy_never_writes_are_refused(tmp_path: Path, kind: int):
    path = tmp_path / "x.npz"
    path.write_bytes(zipped(kind, npy(described((4, 4)))))
    check_refused(path, read_matrix, "compression")


@pytest.mark.parametrize("size", [0, 64, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_whose_sizes_lie_are_refused(tmp_path: Path, kind: int, size: int):
    path, rows = tmp_path / "x.npz", max(1, (size - 128) // 16)
    header = described((rows, 4))
    data = zipped(kind, npy(header))
    at = data.rindex(b"PK\1\2")
    data[at + 24 : at + 28] = struct.pack("<I", size)  # the size unpacked
    if kind == zipfile.ZIP_STORED:
        data[at + 20 : at + 24] = struct.pack("<I", size)
    path.write_bytes(data)
    check_refused(path, read_matrix)


@pytest.mark.parametrize("offset", [1, 1 << 20, (1 << 32) - 2])
def test_members_that_lie_elsewhere_are_refused(tmp_path: Path, offset: int):
    path = tmp_path / "x.npz"
    data = zipped(zipfile.ZIP_STORED, npy(described((4, 4))))
    at = data.rindex(b"PK\1\2")
    data[at + 42 : at + 46] = struct.pack("<I", offset)
    path.write_bytes(data)
    check_refused(path, read_matrix)


@pytest.mark.parametrize("suffix", ["fvecs", "bvecs", "ivecs"])
@pytest.mark.parametrize("count", [-1, 0, 17, 1 << 30, (1 << 31) - 1, -(1 << 31)])
def test_rows_whose_number_of_values_lies_are_refused(tmp_path: Path, suffix: str, count: int):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(struct.pack("<i", count) + bytes(64))
    check_refused(path, read_matrix)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 64]},
        {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 1 << 50]},
        {"dtype": "F32", "shape": [1 << 62, 1 << 62, 0], "data_offsets": [0, 0]},
        {"dtype": "F64", "shape": [-2, -4], "data_offsets": [0, 64]},
        {"dtype": "BOOL", "shape": [8, 8], "data_offsets": [0, 64]},
    ],
    ids=str,
)
def test_tensors_that_lie_are_refused(tmp_path: Path, entry: dict):
    path, text = tmp_path / "x.safetensors", json.dumps({"x": entry})
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(64))
    check_refused(path, read_matrix)


def test_a_file_changed_or_cut_anywhere_is_read_or_refused(tmp_path: Path):
    x = np.arange(64, dtype=np.float32).reshape(16, 4)
    np.save(tmp_path / "x.npy", x)
    np.savez_compressed(tmp_path / "z.npz", x)
    np.savez(tmp_path / "s.npz", x)
    generator, seen = np.random.default_rng(0), set()
    for source in ("x.npy", "z.npz", "s.npz"):
        whole, path = (tmp_path / source).read_bytes(), tmp_path / f"changed{source}"
        for _ in range(100):
            data = bytearray(whole)
            if generator.random() < 0.3:
                del data[int(generator.integers(len(data))) :]
            data[int(generator.integers(len(data) or 1)) :][:1] = b""
            if data:
                data[int(generator.integers(min(len(data), 200)))] ^= 1 << int(generator.integers(8))
            path.unlink(missing_ok=True)
            path.write_bytes(data)
            try:
                found = np.asarray(read_matrix(path))
                found.sum()
                seen.add("read")
            except gpuzip.FormatError as error:
                seen.add("refused" if str(path) in str(error) else f"nameless {error!r}")
    assert seen == {"read", "refused"}
