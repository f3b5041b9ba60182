"""Tensors that do not fit their header, the file or memory are refused."""

import json
import math
import os
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import gpuzip
from tests.attacks.forge import (
    ROWS,
    Forgery,
    N,
    blake,
    canonical,
    check_all_refuse,
    check_codec_refused,
    check_refused,
    load_opened,
    outcomes,
    peak_growth,
)

CODES = [
    ("I8", [6, 1]),
    ("BOOL", [6, 1]),
    ("I16", [3, 1]),
    ("F16", [3, 1]),
    ("U8", [6]),
    ("U8", [6, 1, 1]),
    ("U8", [3, 2]),
    ("U8", [2, 3]),
    ("U8", [1, 6]),
    ("U8", []),
]


@pytest.mark.parametrize(("dtype", "shape"), CODES)
def test_refuses_sealed_codes_of_another_dtype_or_width(
    original: bytes, path: Path, dtype: str, shape: list[int]
):
    forgery = Forgery.of(original)
    raw = forgery.tensors["codes"][2][: 6 if shape else 1]
    forgery.tensors["codes"] = (dtype, shape, raw)
    forgery.header["n"] = shape[0] if shape else 1
    check_codec_refused(path, forgery.bytes())


@pytest.mark.parametrize("n", [0, 6, 2**40, 2**62, 2**63, 2**64 - 1])
def test_refuses_codes_of_no_bytes_per_row(original: bytes, path: Path, n: int):
    """The file size does not limit how many such rows a header can claim."""
    forgery = Forgery.of(original)
    forgery.tensors["codes"] = ("U8", [n, 0], b"")
    forgery.header["n"] = n
    check_all_refuse(path, forgery.bytes())


CENTROIDS = [
    ("I16", [2, 2, 2]),
    ("BF16", [2, 2, 2]),
    ("U8", [2, 2, 4]),
    ("F32", [2, 2, 1]),
    ("F64", [2, 1, 1]),
    ("F16", [8]),
    ("F16", [2, 4]),
    ("F16", [2, 2, 2, 1]),
    ("F16", [1, 2, 4]),
    ("F16", [4, 2, 1]),
    ("F16", [2, 4, 1]),
    ("F16", [2, 1, 4]),
]


@pytest.mark.parametrize(("dtype", "shape"), CENTROIDS)
def test_refuses_a_sealed_codebook_of_another_dtype_or_shape(
    original: bytes, path: Path, dtype: str, shape: list[int]
):
    forgery = Forgery.of(original)
    forgery.tensors["state.centroids"] = (dtype, shape, forgery.tensors["state.centroids"][2])
    check_codec_refused(path, forgery.bytes())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_refuses_a_sealed_codebook_with_nan_or_inf(original: bytes, path: Path, value: float, dtype: str):
    forgery = Forgery.of(original)
    centroids = np.ones(8, np.float16 if dtype == "F16" else np.float32)
    centroids[5] = value
    forgery.tensors["state.centroids"] = (dtype, [2, 2, 2], centroids.tobytes())
    check_codec_refused(path, forgery.bytes(), "NaN|inf|finite")


def test_refuses_tensors_that_the_header_does_not_list(original: bytes, path: Path):
    unlisted, absent, renamed = (Forgery.of(original) for _ in range(3))
    listed = set(unlisted.header["checksums"])
    unlisted.tensors["extra"] = ("U8", [3], b"abc")

    def unlist(text: str) -> str:
        header = json.loads(text)
        header["checksums"] = {name: header["checksums"][name] for name in listed}
        header["digest"] = blake(canonical({k: v for k, v in header.items() if k != "digest"}).encode())
        return canonical(header)

    absent.header["checksums"]["state.more"] = "0" * 32
    renamed.tensors["Codes"] = renamed.tensors.pop("codes")
    for data in (unlisted.bytes(edit=unlist), absent.bytes(), renamed.bytes()):
        check_all_refuse(path, data, "must hold the tensors that its header lists")


@pytest.mark.parametrize("name", ["extra", "state.extra", "centroids", "state.", ""])
def test_refuses_an_extra_tensor_that_is_listed(original: bytes, path: Path, name: str):
    forgery = Forgery.of(original)
    forgery.tensors[name] = ("F16", [2, 2, 2], bytes(16))
    check_codec_refused(path, forgery.bytes())


TABLES = [
    ("U8", [0, 1, 4]),
    ("U8", [2, 1, 4]),
    ("U8", [1, 2, 4]),
    ("U8", [1, 1, 8]),
    ("U8", [1, 1, 3]),
    ("U8", [1, 4]),
    ("U8", [4]),
    ("U8", []),
    ("I8", [1, 1, 4]),
    ("F32", [1, 1, 1]),
    ("F16", [1, 1, 4]),
    ("U8", [2**62, 0, 4]),
    ("U8", [1, 2**62, 0]),
]


@pytest.mark.parametrize(("dtype", "shape"), TABLES)
def test_refuses_a_table_of_another_dtype_or_shape(original: bytes, path: Path, dtype: str, shape: list[int]):
    forgery = Forgery.of(original)
    size = math.prod(shape) * {"F32": 4, "F16": 2}.get(dtype, 1)
    forgery.tensors["crc32"], forgery.own_table = (dtype, shape, bytes(size)), True
    check_all_refuse(path, forgery.bytes(), "must be|cannot be read as safetensors")


@pytest.mark.parametrize("block_rows", [1, 5, 3])
def test_refuses_a_table_of_blocks_of_another_size(original: bytes, path: Path, block_rows: int):
    forgery = Forgery.of(original)
    forgery.header["block_rows"], forgery.own_table = block_rows, True
    check_all_refuse(path, forgery.bytes(), rf"crc32 must be \({-(-N // block_rows)}, 1, 4\) uint8")
    forgery.own_table = False
    path.write_bytes(forgery.bytes())
    assert gpuzip.load(path).tolist() == gpuzip.open(path).rows(range(N)).tolist() == ROWS


@pytest.mark.parametrize("block_rows", [7, 2**63 - 1])
def test_blocks_may_be_larger_than_the_file(original: bytes, path: Path, block_rows: int):
    forgery = Forgery.of(original)
    forgery.header["block_rows"] = block_rows
    path.write_bytes(forgery.bytes())
    assert gpuzip.load(path).tolist() == gpuzip.open(path).rows(range(N)).tolist() == ROWS


def test_refuses_a_file_without_a_table_or_with_one_too_many(original: bytes, path: Path):
    without, listed, older = (Forgery.of(original) for _ in range(3))
    del without.tensors["crc32"]
    check_all_refuse(path, without.bytes(), "must hold the tensors that its header lists")
    listed.header["checksums"]["crc32"] = "0" * 32
    check_all_refuse(path, listed.bytes(), "must hold the tensors that its header lists")
    older.header["format"] = 1
    del older.header["block_rows"]
    check_all_refuse(path, older.bytes(), "must hold codes and a state")
    del older.tensors["crc32"], older.header["checksums"]["crc32"]
    path.write_bytes(older.bytes())
    assert gpuzip.load(path).tolist() == ROWS and gpuzip.info(path).format == 1


def test_a_sealed_table_of_other_codes_is_found_where_codes_are_read(original: bytes, path: Path):
    forgery = Forgery.of(original)
    forgery.tensors["crc32"], forgery.own_table = ("U8", [1, 1, 4], b"abcd"), True
    path.write_bytes(forgery.bytes())
    assert gpuzip.info(path).n == len(gpuzip.open(path)) == N
    for read in (gpuzip.load, load_opened, lambda path: gpuzip.open(path).rows([2])):
        check_refused(path, read, f"rows 0 to {N - 1} of codes do not match their checksum")


@pytest.mark.parametrize("name", ["centroids", "State.centroids", "state.state.centroids"])
def test_refuses_a_codebook_under_another_name(original: bytes, path: Path, name: str):
    forgery = Forgery.of(original)
    forgery.tensors[name] = forgery.tensors.pop("state.centroids")
    forgery.header["checksums"].pop("state.centroids")
    check_codec_refused(path, forgery.bytes())


def test_repeated_tensor_never_gives_wrong_rows(original: bytes, path: Path):
    def again(text: str) -> list[str]:
        codes = text.rpartition('"codes": ')[2].rpartition("}")[0]
        shapes = [codes, codes.replace("[6, 1]", "[3, 2]"), codes.replace("U8", "I8")]
        return [text[:-1] + f', "codes": {shape}}}' for shape in shapes] + [
            text.replace('"codes":', f'"codes": {shape}, "codes":') for shape in shapes
        ]

    forgery = Forgery.of(original)
    variants = [forgery.bytes(edit_outer=lambda text, i=i: again(text)[i]) for i in range(6)]  # type: ignore[misc]
    assert outcomes(path, variants) <= {"FormatError", "rows"}


SHAPES = ["[-1, 6]", "[4611686018427387904, 4]", "[18446744073709551616, 1]", "[1e1, 1]", "[6.0, 1]", "6"]


@pytest.mark.parametrize("shape", SHAPES)
def test_refuses_an_invalid_shape(original: bytes, path: Path, shape: str):
    data = Forgery.of(original).bytes(edit_outer=lambda text: text.replace("[6, 1]", shape))
    check_all_refuse(path, data, "cannot be read as safetensors")


@pytest.mark.parametrize("offsets", ["[16, 10]", "[0, 6]", "[16, 21]", "[17, 23]", "[16, 1125899906842624]"])
def test_refuses_offsets_that_do_not_tile_the_file(original: bytes, path: Path, offsets: str):
    text = json.dumps(Forgery.of(original).tensors["codes"][1])
    data = Forgery.of(original).bytes(edit_outer=lambda outer: outer.replace("[16, 22]", offsets))
    assert text == "[6, 1]"
    assert offsets.encode() in data
    check_all_refuse(path, data, "cannot be read as safetensors")


def test_refuses_a_header_that_claims_a_petabyte(original: bytes, path: Path):
    forgery = Forgery.of(original)
    forgery.header["n"] = 1 << 50
    claim = {"[6, 1]": f"[{1 << 50}, 1]", "[16, 22]": f"[16, {16 + (1 << 50)}]"}

    def edit(text: str) -> str:
        for old, new in claim.items():
            assert old in text
            text = text.replace(old, new)
        return text

    check_all_refuse(path, forgery.bytes(edit_outer=edit))


def test_refuses_millions_of_values_before_allocating_them(original: bytes, path: Path):
    """9 MB of text would become 200 MB of lists."""
    data = Forgery.of(original).bytes(edit=lambda _: '{"format":1,"config":[' + "[]," * 3_000_000 + "0]}")
    check_all_refuse(path, data)


def test_refuses_thirty_thousand_tensors_before_allocating_them(original: bytes, path: Path):
    forgery = Forgery.of(original)
    forgery.tensors |= {f"state.{i}": ("U8", [0], b"") for i in range(30_000)}
    check_all_refuse(path, forgery.bytes())


@pytest.mark.skipif(sys.platform != "linux", reason="needs files with holes, and /proc")
def test_opens_a_file_larger_than_memory(original: bytes, path: Path):
    total = int(Path("/proc/meminfo").read_text().partition("SwapTotal:")[0].split()[1]) * 1024
    n = 2 * total
    forgery = Forgery.of(original)
    forgery.header["n"] = n
    forgery.header["block_rows"] = rows = 1 << 24
    blocks, rest = divmod(n, rows)
    table = zlib.crc32(bytes(rows)).to_bytes(4, "little") * blocks
    table += zlib.crc32(bytes(rest)).to_bytes(4, "little") * (rest > 0)
    forgery.tensors["crc32"] = ("U8", [len(table) // 4, 1, 4], table)
    del forgery.tensors["codes"]
    forgery.tensors["codes"] = ("U8", [n, 1], b"")  # last in the file
    start = 16 + len(table)
    data = forgery.bytes(
        edit_outer=lambda text: text.replace(f"[{start}, {start}]", f"[{start}, {start + n}]")
    )
    path.write_bytes(data)
    try:
        os.truncate(path, len(data) + n)
    except OSError as error:
        pytest.skip(f"no file of {n} bytes here: {error}")
    decoded: list[list[float]] = []

    def read() -> None:
        decoded.extend(gpuzip.open(path)[[0, n // 2, n - 1]].decode().tolist())

    assert peak_growth(read) < 64 << 20
    assert decoded == [ROWS[1]] * 3
