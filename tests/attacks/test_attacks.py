"""Files made to break the reader: each is refused, by name, soon and in little memory."""

import hashlib
import io
import json
import os
import pickle
import random
import re
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import gpuzip
from gpuzip.codecs.pq import Codebook

Reader = Callable[[Path], Any]
READERS: list[Reader] = [gpuzip.load, gpuzip.open, gpuzip.info]

M, NBITS, S, N = 2, 1, 2, 6
ROWS = [[3.0, 4.0, 7.0, 8.0], [1.0, 2.0, 5.0, 6.0]] * 3
TORCH = {
    "U8": "uint8",
    "I8": "int8",
    "BOOL": "bool",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole file of ours, as small as they come."""
    path = tmp_path_factory.mktemp("original") / "a.ezip"
    centroids = torch.arange(1.0, M * 2 * S + 1).view(M, 2, S)
    codec = gpuzip.ProductQuantizer(m=M, nbits=NBITS, codebook=Codebook(centroids, M * S, seed=0))
    gpuzip.Codes(codec, torch.tensor([[3], [0]] * 3, dtype=torch.uint8)).save(path, torch.tensor(ROWS))
    return path.read_bytes()


@dataclass
class Forgery:
    """A file taken apart. `bytes` puts it together again with every checksum made right."""

    header: dict[str, Any]
    tensors: dict[str, tuple[str, list[int], bytes]]

    @classmethod
    def of(cls, data: bytes) -> "Forgery":
        size = struct.unpack("<Q", data[:8])[0]
        outer, body = json.loads(data[8 : 8 + size]), data[8 + size :]
        header = json.loads(outer.pop("__metadata__")["gpuzip"])
        tensors = {
            name: (t["dtype"], t["shape"], body[slice(*t["data_offsets"])]) for name, t in outer.items()
        }
        return cls(header, tensors)

    def bytes(self, edit: Callable[[str], str] = str, edit_outer: Callable[[str], str] = str) -> bytes:
        """edit: of the text of our header, edit_outer: of safetensors' own, both after sealing."""
        if isinstance(self.header.get("checksums"), dict):
            self.header["checksums"] |= {name: self.checksum(name) for name in self.tensors}
        bare = {name: value for name, value in self.header.items() if name != "digest"}
        self.header["digest"] = blake(canonical(bare).encode())
        outer: dict[str, Any] = {"__metadata__": {"gpuzip": edit(canonical(self.header))}}
        body = b""
        for name, (dtype, shape, raw) in self.tensors.items():
            outer[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
            body += raw
        text = edit_outer(json.dumps(outer))
        return joined(text + " " * (-len(text) % 8), body)

    def checksum(self, name: str) -> str:
        dtype, shape, raw = self.tensors[name]
        return blake(f"torch.{TORCH[dtype]}{tuple(shape)}".encode() + raw)


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def blake(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def joined(outer: str, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(outer.encode())) + outer.encode() + body


def peak_growth(call: Callable[[], object]) -> int:
    """Bytes by which this process's memory grew while it was in `call`."""
    status = Path("/proc/self/status")

    def field(name: str) -> int:
        return int(status.read_text().partition(name)[2].split()[1]) * 1024

    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what there is now
    except OSError:
        call()
        return 0
    before = field("VmRSS")
    call()
    return field("VmHWM") - before


def check_refused(path: Path, read: Reader, match: str = "") -> None:
    """By a FormatError that names the file and says `match`, within 3 seconds and 64 MB."""

    def attempt() -> None:
        with pytest.raises(gpuzip.FormatError, match=match or None) as caught:
            read(path)
        assert str(path) in str(caught.value)

    start = time.perf_counter()
    assert peak_growth(attempt) < 64 << 20
    assert time.perf_counter() - start < 3


def check_all_refuse(path: Path, data: bytes, match: str = "") -> None:
    path.write_bytes(data)
    for read in READERS:
        check_refused(path, read, match)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "attack.ezip"


def test_a_forgery_that_changes_nothing_is_read(original: bytes, path: Path):
    path.write_bytes(Forgery.of(original).bytes())
    assert gpuzip.load(path).tolist() == ROWS
    assert gpuzip.info(path).n == N


def torch_file() -> bytes:
    out = io.BytesIO()
    torch.save({"codes": torch.zeros(3)}, out)
    return out.getvalue()


def zip_file() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("codes", b"x" * 500)
    return out.getvalue()


STRANGERS = {
    "empty": b"",
    "7 bytes": b"\1\0\0\0\0\0\0",
    "8 zeros": bytes(8),
    "zeros": bytes(4096),
    "random": random.Random(0).randbytes(4096),
    "text": "Zürich is not an .ezip file.\n".encode() * 50,
    "JSON": b'{"gpuzip": 1}',
    "pickle": pickle.dumps({"codes": [0] * 100}),
    "torch.save": torch_file(),
    "zip": zip_file(),
    "npy": np.lib.format.magic(1, 0) + bytes(100),
    "no header": joined(""),
    "a list": joined("[]"),
    "deep": joined('{"a":' * 100_000),
    "deep list": joined("[" * 100_000),
    "header of 2**64 - 1": b"\xff" * 8 + b"{}",
    "header of 2**62": struct.pack("<Q", 1 << 62) + b"{}",
    "header of 99 MB": struct.pack("<Q", 99_000_000) + b'{"a"',
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_safetensors_file_is_refused(path: Path, name: str):
    check_all_refuse(path, STRANGERS[name], "not a readable safetensors file")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"GPUZIP": "{}"}])
def test_a_safetensors_file_of_someone_else_is_refused(path: Path, metadata: dict[str, str] | None):
    save_file({"codes": torch.zeros(3, 2, dtype=torch.uint8)}, path, metadata)
    check_all_refuse(path, path.read_bytes(), "gpuzip did not write")


class Touches:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.marker,)


def test_no_pickle_is_ever_loaded(path: Path, tmp_path: Path):
    marker, saved = tmp_path / "marker", io.BytesIO()
    torch.save({"codes": Touches(marker)}, saved)
    pickle.loads(pickle.dumps(Touches(marker)))
    assert marker.exists()  # it is a live one
    marker.unlink()
    for data in (pickle.dumps(Touches(marker)), pickle.dumps(Touches(marker), 0), saved.getvalue()):
        check_all_refuse(path, data)
    assert not marker.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_refused_and_not_waited_for(path: Path):
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)  # else a reader that opens it would hang, and this test with it
    try:
        for read in READERS:
            check_refused(path, read, "a file is needed")
    finally:
        os.close(end)


def test_a_file_cut_short_anywhere_is_refused(original: bytes, path: Path):
    sizes = [*range(0, len(original), 97), *range(len(original) - 12, len(original))]
    for size in sizes:
        check_all_refuse(path, original[:size], "not a readable safetensors file")


def test_a_file_with_more_at_its_end_is_refused(original: bytes, path: Path):
    for more in (b"\0", original):
        check_all_refuse(path, original + more)


def outcomes(path: Path, variants: list[bytes], read: Reader = gpuzip.load) -> set[str]:
    """What reading each came to: an error's name, "rows" when they are right, else "wrong rows"."""
    seen = set()
    for data in variants:
        path.unlink(missing_ok=True)  # ext4 flushes a file that is written over, which takes 2 ms
        path.write_bytes(data)
        try:
            result = read(path)
            seen.add("rows" if isinstance(result, Tensor) and result.tolist() == ROWS else "wrong rows")
        except Exception as error:
            seen.add(type(error).__name__ if str(path) in str(error) else f"nameless {error!r}")
    return seen


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def test_every_flipped_bit_is_found(original: bytes, path: Path):
    variants = [flipped(original, bit) for bit in range(8 * len(original))]
    assert outcomes(path, variants) == {"FormatError"}


def test_open_finds_every_flipped_bit_but_those_of_the_codes(original: bytes, path: Path):
    codes = 8 * N
    variants = [flipped(original, bit) for bit in range(0, 8 * len(original) - codes, 5)]
    assert outcomes(path, variants, gpuzip.open) == {"FormatError"}
    in_codes = [flipped(original, bit) for bit in range(8 * len(original) - codes, 8 * len(original))]
    assert outcomes(path, in_codes, lambda p: gpuzip.open(p, verify=True)) == {"FormatError"}


def test_pieces_moved_doubled_or_lost_are_found(original: bytes, path: Path):
    rng, variants = random.Random(0), []
    for _ in range(400):
        a, b, c = sorted(rng.randrange(len(original) + 1) for _ in range(3))
        first, second, third, last = original[:a], original[a:b], original[b:c], original[c:]
        parts = rng.choice(
            [
                (first, third, second, last),
                (first, third, last),
                (first, second, second, third, last),
                (first, rng.randbytes(len(second)), third, last),
            ]
        )
        variants.append(b"".join(parts))
    assert outcomes(path, [v for v in variants if v != original]) == {"FormatError"}


HEADER_TEXTS = {
    "not json": "not JSON",
    "": "not JSON",
    "'": "not JSON",
    '"\ud7ff"': "no format number",
    "[]": "no format number",
    "null": "no format number",
    "NaN": "",
    "{}": "no format number",
    '{"format":null}': "no format number",
    '{"format":"1"}': "no format number",
    '{"format":1.0}': "no format number",
    '{"format":true}': "",
    '{"format":NaN}': "",
    '{"format":1}': "",
    '{"format":1e999}': "no format number",
    '{"format":2}': "newer",
    '{"format":' + "9" * 1000 + "}": "newer",
    '{"format":' + "9" * 5000 + "}": "",
    '{"format":1,"n":' + "9" * 5000 + "}": "",
    "[" * 100_000: "",
    '{"format":1,"config":' + '{"a":' * 100_000: "",
}


@pytest.mark.parametrize("text", HEADER_TEXTS, ids=lambda text: text[:24])
def test_a_header_that_says_nothing_is_refused(original: bytes, path: Path, text: str):
    check_all_refuse(path, Forgery.of(original).bytes(edit=lambda _: text), HEADER_TEXTS[text])


def test_a_header_of_any_depth_is_refused(original: bytes, path: Path):
    """Reading JSON and writing it for the digest stop at different depths."""
    forgery = Forgery.of(original)
    forgery.header["config"] = "?"
    limit = sys.getrecursionlimit()
    variants = [
        forgery.bytes(edit=lambda text, d=depth: text.replace('"?"', "[" * d + "]" * d))  # type: ignore[misc]
        for depth in [*range(50, limit - 100, 50), *range(limit - 100, limit + 20)]
    ]
    assert outcomes(path, variants) == {"FormatError"}


@pytest.mark.parametrize("depth", [1, 60, 120])
def test_a_sealed_header_of_nested_lists_is_refused(original: bytes, path: Path, depth: int):
    forgery = Forgery.of(original)
    forgery.header["config"]["m"] = json.loads("[" * depth + "]" * depth)
    path.write_bytes(forgery.bytes())
    for read in (gpuzip.load, gpuzip.open):
        check_refused(path, read)


MISSING = object()
NO_MEASURES: list[Any] = [None, [], "x", "nan", "0.5", True, 10**400, float("nan")]
QUALITY: dict[str, Any] = {"cosine": 0.5, "row_cosine": 0.5, "mse": 0.5}
FIELDS: list[tuple[str, list[Any], str]] = [
    ("format", [2, 10**30], "newer than this version reads"),
    ("format", [-1, 0, True, 1.0, "1", None, [], MISSING], ""),
    ("n", [-1, True, 6.0, "6", None, [], float("nan"), float("inf"), MISSING], ""),
    ("n", [0, N - 1, N + 1, 10**18, 2**63, 10**400], "codes are"),
    ("d", [-1, True, 4.0, "4", None, [], float("nan"), MISSING], ""),
    ("dtype", ["int8", "Float32", "", "load", None, 1, [], {}, MISSING], ""),
    ("codec", [None, 1, [], {}, MISSING], ""),
    ("config", [None, 1, [], "", MISSING], ""),
    ("library", [None, 1, [], MISSING], ""),
    ("checksums", [None, 1, {"state.x": 1}, "", MISSING], ""),
    ("quality", [1, "x", [], {}, True, QUALITY | {"unheard_of": 1}, MISSING], ""),
    ("quality", [QUALITY | {"cosine": v} for v in NO_MEASURES], ""),
    ("unheard_of", [1], ""),
]


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [(field, value, match) for field, values, match in FIELDS for value in values],
    ids=lambda v: "missing" if v is MISSING else str(v)[:20],
)
def test_a_sealed_header_of_the_wrong_kind_is_refused(
    original: bytes, path: Path, field: str, value: object, match: str
):
    forgery = Forgery.of(original)
    forgery.header[field] = value
    if value is MISSING:
        del forgery.header[field]
    check_all_refuse(path, forgery.bytes(), match)


def check_codec_refused(path: Path, data: bytes, match: str = "") -> None:
    """`info` describes a file without its codec; whoever wants rows is refused."""
    path.write_bytes(data)
    for read in (gpuzip.load, gpuzip.open):
        check_refused(path, read, match)


@pytest.mark.parametrize("codec", ["nope", "", "PQ", "codecs", "../pq"])
def test_an_unknown_codec_is_named(original: bytes, path: Path, codec: str):
    forgery = Forgery.of(original)
    forgery.header["codec"] = codec
    check_codec_refused(path, forgery.bytes(), f"'{codec}'")
    with pytest.raises(gpuzip.UnknownCodecError):
        gpuzip.open(path)


SETTINGS: list[tuple[str, list[Any]]] = [
    ("m", ["2", 2.0, None, True, 0, -2, 1, 3, 4, 2**31, 2**63, 10**400, float("nan"), [], MISSING]),
    ("nbits", ["1", 1.0, None, True, 0, -1, 2, 17, 63, 10**12, 10**400, [], MISSING]),
    ("d", ["4", 4.0, None, True, 0, -4, 2, 3, 5, 8, 2**63, 10**400, [], MISSING]),
    ("pad", [0, 1, None, "", [], MISSING]),
    ("seed", ["0", 0.0, True, [], MISSING]),
    ("unheard_of", [1]),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, values in SETTINGS for value in values],
    ids=lambda v: "missing" if v is MISSING else str(v)[:20],
)
def test_sealed_settings_that_do_not_fit_the_tensors_are_refused(
    original: bytes, path: Path, name: str, value: object
):
    forgery = Forgery.of(original)
    forgery.header["config"][name] = value
    if value is MISSING:
        del forgery.header["config"][name]
    check_codec_refused(path, forgery.bytes())


@pytest.mark.parametrize("d", [0, 1, 3, 5, 8, 2**40, 10**400])
def test_a_width_that_is_not_the_codecs_is_refused(original: bytes, path: Path, d: int):
    forgery = Forgery.of(original)
    forgery.header["d"] = d
    check_codec_refused(path, forgery.bytes(), "columns")


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
def test_sealed_codes_of_another_dtype_or_width_are_refused(
    original: bytes, path: Path, dtype: str, shape: list[int]
):
    forgery = Forgery.of(original)
    raw = forgery.tensors["codes"][2][: 6 if shape else 1]
    forgery.tensors["codes"] = (dtype, shape, raw)
    forgery.header["n"] = shape[0] if shape else 1
    check_codec_refused(path, forgery.bytes())


@pytest.mark.parametrize("n", [0, 6, 2**40, 2**62, 2**63, 2**64 - 1])
def test_codes_of_no_bytes_a_row_are_refused(original: bytes, path: Path, n: int):
    """No size of the file limits how many of them it can claim."""
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
def test_a_sealed_codebook_of_another_dtype_or_shape_is_refused(
    original: bytes, path: Path, dtype: str, shape: list[int]
):
    forgery = Forgery.of(original)
    forgery.tensors["state.centroids"] = (dtype, shape, forgery.tensors["state.centroids"][2])
    check_codec_refused(path, forgery.bytes())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_a_sealed_codebook_that_holds_no_numbers_is_refused(
    original: bytes, path: Path, value: float, dtype: str
):
    forgery = Forgery.of(original)
    centroids = np.ones(8, np.float16 if dtype == "F16" else np.float32)
    centroids[5] = value
    forgery.tensors["state.centroids"] = (dtype, [2, 2, 2], centroids.tobytes())
    check_codec_refused(path, forgery.bytes(), "NaN|inf|finite")


def test_tensors_that_the_header_does_not_list_are_refused(original: bytes, path: Path):
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
        check_all_refuse(path, data, "not those its header lists")


@pytest.mark.parametrize("name", ["extra", "state.extra", "centroids", "state.", ""])
def test_a_tensor_too_many_is_refused_though_it_is_listed(original: bytes, path: Path, name: str):
    forgery = Forgery.of(original)
    forgery.tensors[name] = ("F16", [2, 2, 2], bytes(16))
    check_codec_refused(path, forgery.bytes())


@pytest.mark.parametrize("name", ["centroids", "State.centroids", "state.state.centroids"])
def test_a_codebook_under_another_name_is_refused(original: bytes, path: Path, name: str):
    forgery = Forgery.of(original)
    forgery.tensors[name] = forgery.tensors.pop("state.centroids")
    forgery.header["checksums"].pop("state.centroids")
    check_codec_refused(path, forgery.bytes())


REWORDED = {
    "key twice": ('"n":6', '"n":7,"n":6'),
    "key twice, the same": ('"n":6', '"n":6,"n":6'),
    "spaces": ('"n":6', '"n": 6'),
    "escapes": ('"codec"', '"\\u0063odec"'),
    "a space at the end": ('"row_cosine":1.0}}', '"row_cosine":1.0}} '),
    "NaN": ('"n":6', '"n":NaN'),
    "a number that is none": ('"n":6', '"n":1e999'),
}


@pytest.mark.parametrize("name", REWORDED)
def test_a_header_in_words_that_we_do_not_write_is_refused(original: bytes, path: Path, name: str):
    """Two texts of one meaning could be read as two meanings by another reader."""
    old, new = REWORDED[name]
    assert old in canonical(Forgery.of(original).header)
    check_all_refuse(path, Forgery.of(original).bytes(edit=lambda text: text.replace(old, new)))


def test_a_tensor_given_twice_never_gives_wrong_rows(original: bytes, path: Path):
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
def test_a_shape_that_is_none_is_refused(original: bytes, path: Path, shape: str):
    data = Forgery.of(original).bytes(edit_outer=lambda text: text.replace("[6, 1]", shape))
    check_all_refuse(path, data, "not a readable safetensors file")


@pytest.mark.parametrize("offsets", ["[16, 10]", "[0, 6]", "[16, 21]", "[17, 23]", "[16, 1125899906842624]"])
def test_offsets_that_do_not_tile_the_file_are_refused(original: bytes, path: Path, offsets: str):
    text = json.dumps(Forgery.of(original).tensors["codes"][1])
    data = Forgery.of(original).bytes(edit_outer=lambda outer: outer.replace("[16, 22]", offsets))
    assert text == "[6, 1]"
    assert offsets.encode() in data
    check_all_refuse(path, data, "not a readable safetensors file")


def test_a_header_that_claims_a_petabyte_is_refused(original: bytes, path: Path):
    forgery = Forgery.of(original)
    forgery.header["n"] = 1 << 50
    claim = {"[6, 1]": f"[{1 << 50}, 1]", "[16, 22]": f"[16, {16 + (1 << 50)}]"}

    def edit(text: str) -> str:
        for old, new in claim.items():
            assert old in text
            text = text.replace(old, new)
        return text

    check_all_refuse(path, forgery.bytes(edit_outer=edit))


def test_a_header_of_millions_of_values_is_refused_before_they_are_made(original: bytes, path: Path):
    """9 MB of text would be 200 MB of lists."""
    data = Forgery.of(original).bytes(edit=lambda _: '{"format":1,"config":[' + "[]," * 3_000_000 + "0]}")
    check_all_refuse(path, data)


def test_thirty_thousand_tensors_are_refused_before_they_are_made(original: bytes, path: Path):
    forgery = Forgery.of(original)
    forgery.tensors |= {f"state.{i}": ("U8", [0], b"") for i in range(30_000)}
    check_all_refuse(path, forgery.bytes())


@pytest.mark.skipif(sys.platform != "linux", reason="needs files with holes, and /proc")
def test_a_file_larger_than_memory_is_opened_and_read_in_little_of_it(original: bytes, path: Path):
    total = int(Path("/proc/meminfo").read_text().partition("SwapTotal:")[0].split()[1]) * 1024
    n = 2 * total
    forgery = Forgery.of(original)
    forgery.header["n"] = n
    forgery.tensors["codes"] = ("U8", [n, 1], b"")
    data = forgery.bytes(edit_outer=lambda text: text.replace("[16, 16]", f"[16, {16 + n}]"))
    path.write_bytes(data)
    try:
        os.truncate(path, len(data) + n)
    except OSError as error:
        pytest.skip(f"no file of {n} bytes here: {error}")
    decoded = []

    def read() -> None:
        decoded.extend(gpuzip.open(path)[[0, n // 2, n - 1]].decode().tolist())

    assert peak_growth(read) < 64 << 20
    assert decoded == [ROWS[1]] * 3


def test_the_limits_of_these_tests_are_not_empty(tmp_path: Path):
    """The gauge sees 100 MB, and a file that is fine is not taken for a refused one."""
    if Path("/proc/self/clear_refs").exists():
        assert peak_growth(lambda: np.ones(100 << 20, np.uint8)) > 64 << 20
    with pytest.raises(pytest.fail.Exception):
        check_refused(tmp_path, lambda _: None)

    def nameless(path: Path) -> None:
        raise gpuzip.FormatError("some file is damaged")

    with pytest.raises(AssertionError, match=re.escape(str(tmp_path))):
        check_refused(tmp_path, nameless)
