"""Pickles that run code, and sizes that lie, in files that claim to be embzip's."""

import io
import lzma
import os
import pickle
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gpuzip
from gpuzip.interop.embzip import read_embzip
from tests.attacks.forge import peak_growth


def refused(path: Path, data: bytes, match: str = "") -> None:
    """Read the bytes, and in LZMA; both are a FormatError that names the file, in 24 MB and 3 s of work."""
    for whole in (data, lzma.compress(data, preset=0)):
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        start = time.process_time()  # whatever else the machine does

        def attempt() -> None:
            with pytest.raises(gpuzip.FormatError, match=match or None) as caught:
                read_embzip(path)
            assert str(path) in str(caught.value)

        assert peak_growth(attempt) < 24 << 20
        assert time.process_time() - start < 3


class Call:
    """Pickles as a call."""

    def __init__(self, called: Any, *args: Any) -> None:
        self.call = (called, args)

    def __reduce__(self) -> Any:
        return self.call


def by_name(module: str, name: str, *args: Any) -> bytes:
    """A pickle that calls a name, which need not be importable here."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + pickle.dumps(args, 2)[2:-1] + b"R."


def torch_file(value: Any, legacy: bool) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=not legacy)
    return out.getvalue()


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_of_the_system_is_never_made(path: Path, tmp_path: Path, protocol: int):
    ran = tmp_path / "ran"
    call = Call(os.system, f"touch {ran}")
    for value in (call, {"codes": call, "index": call}, [call], {"a": {"b": (call,)}}):
        refused(path, pickle.dumps(value, protocol))
        for legacy in (False, True):
            refused(path, torch_file(value, legacy), r"names (posix|nt)\.system")
    assert not ran.exists()


NAMES: list[tuple[str, str, tuple]] = [
    ("builtins", "eval", ("1/0",)),
    ("builtins", "exec", ("1/0",)),
    ("builtins", "getattr", ("a", "b")),
    ("builtins", "bytearray", (1 << 40,)),
    ("subprocess", "Popen", ("touch x",)),
    ("torch.storage", "_load_from_bytes", (b"a pickle",)),
    ("torch", "load", ("x",)),
    ("torch.serialization", "load", ("x",)),
    ("torch.hub", "load", ("a/b", "c")),
    ("torch._utils", "_rebuild_device_tensor_from_numpy", ()),
    ("torch._utils", "_rebuild_wrapper_subclass", ()),
    ("torch._tensor", "_rebuild_from_type_v2", (eval, "1/0")),
    ("torch", "empty", (1 << 40,)),
    ("numpy", "load", ("x", None, True)),
    ("numpy", "fromfile", ("/etc/passwd",)),
    ("numpy", "memmap", ("x", "u1", "w+", 0, 1 << 40)),
    ("numpy", "zeros", (1 << 40,)),
    ("numpy.lib.npyio", "load", ("x",)),
    ("numpy.lib.format", "open_memmap", ("x",)),
    ("numpy.testing._private.utils", "runstring", ("1/0", {})),
    ("numpy.core.multiarray", "fromfile", ("x",)),
    ("numpy", "ndarray.fromfile", ("x",)),
    ("numpy", "ndarray.__class__", ()),
    ("numpy.ndarray", "__class__", ()),
    ("faiss", "read_index", ("x",)),
    ("faiss.swigfaiss", "read_index", ("x",)),
    ("faiss.swigfaiss.os", "system", ("touch x",)),
    ("faiss", "deserialize_index", (b"x",)),
    ("faiss.contrib.x", "IndexIDMap2", ()),
    ("_codecs", "decode", (b"x", "zlib")),
    ("codecs", "encode", ("x", "latin1")),
    ("collections", "namedtuple", ("a", "b")),
    ("copyreg", "_reconstructor", (object, object, None)),
    ("copyreg", "__newobj__", (object,)),
    ("operator", "attrgetter", ("system",)),
    ("functools", "partial", (eval, "1/0")),
    ("pickle", "loads", (b"x",)),
    ("os\x1b[31m", "system", ()),
]


@pytest.mark.parametrize(("module", "name", "args"), NAMES, ids=[f"{m}.{n}"[:40] for m, n, _ in NAMES])
def test_a_gadget_is_refused_by_its_name(path: Path, module: str, name: str, args: tuple):
    shown = f"{module}.{name}".encode("unicode_escape").decode()
    refused(path, by_name(module, name, *args), r"its pickle names \S+, which embzip's do not")
    path.write_bytes(by_name(module, name, *args))
    with pytest.raises(gpuzip.FormatError) as caught:
        read_embzip(path)
    assert shown[:80] in str(caught.value) and str(caught.value).isprintable()


OPCODES = {
    "inst": b"(S'touch x'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch x'\no.",
    "by extension": b"\x80\x02\x82\x01.",
    "newobj of keywords": b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93)}\x92.",
    "out of band": b"\x80\x05\x97.",
    "global of three words": b"cnumpy ndarray\nx\n)R.",
    "a name that is a number": b"\x80\x04K\x01K\x02\x93.",
    "a call of a number": b"\x80\x04K\x01)R.",
    "a call with no tuple": b"\x80\x04cnumpy\ndtype\n]R.",
    "state of a number": b"\x80\x04K\x01}b.",
    "a key that is a tuple": b"\x80\x04}))s.",
    "an odd number of items": b"\x80\x04}(K\x01u.",
    "an append to a number": b"\x80\x04K\x01K\x01a.",
    "a mark as a value": b"\x80\x04(.",
    "an empty stack": b".",
    "no end": b"\x80\x04N",
    "a memo that is not there": b"\x80\x04h\x09.",
    "a persistent name": b"Pabc\n.",
    "nothing": b"",
    "text": b"codes, index",
    "a dict that holds itself": b"\x80\x02}q\x00X\x05\x00\x00\x00codesh\x00sX\x05\x00\x00\x00indexh\x00s.",
}


@pytest.mark.parametrize("name", OPCODES)
def test_opcodes_that_embzip_does_not_use_are_refused(path: Path, name: str):
    refused(path, OPCODES[name])


def test_any_depth_is_refused_without_a_crash(path: Path):
    for open_, close in ((b"]", b"a"), (b"(", b"t"), (b"", b"\x85"), (b"}X\x01\x00\x00\x00a", b"s")):
        for depth in (9, 3000, 200_000):
            refused(path, b"\x80\x02" + open_ * depth + b"N" + close * depth + b".")
            shape = b"X\x05\x00\x00\x00shape" + open_ * depth + b"N" + close * depth + b"s"
            refused(path, file_of(index_bytes(6, 8, 4, 4))[:-1] + shape + b".")
            within = b"X\x05\x00\x00\x00codes" + open_ * depth + b"N" + close * depth + b"s"
            refused(path, b"\x80\x02}" + within + b"X\x05\x00\x00\x00indexNs.")


def test_bombs_of_the_memo_and_of_names_take_no_memory(path: Path):
    doubled = b"\x80\x02]q\x00" + b"".join(
        b"](" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(200)
    )
    refused(path, doubled + b".")
    text = b"X" + struct.pack("<I", 1 << 20) + b"\xc3\xa9" * (1 << 19)
    again = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    refused(path, b"\x80\x02" + text + b"q\x00" + again * 1000 + b".")
    refused(path, b"\x80\x02" + b"N0" * 100_000 + b".", "embzip's do not|more than")
    refused(path, b"\x80\x02" + b"N" * 100_000 + b".", "more than 10000 opcodes")


SIZES = {
    "bytes of 2**62": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
    "bytes of 4 GB": b"\x80\x04B" + struct.pack("<I", (1 << 32) - 1) + b"x.",
    "a bytearray of 2**62": b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"x.",
    "text of 2**62": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "a number of 2 GB": b"\x80\x04\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.",
    "a number of -1 bytes": b"\x80\x04\x8b" + struct.pack("<i", -1) + b"x.",
    "a frame of 2**60": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
    "a memo of 2**32": b"\x80\x04Nr" + struct.pack("<I", (1 << 32) - 1) + b".",
    "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "a long of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_lie_take_no_memory(path: Path, name: str):
    refused(path, SIZES[name])


def index_bytes(n: int, d: int, m: int, nbits: int, **lies: Any) -> bytes:
    """FAISS's bytes of an IndexIDMap2 of an IndexPQ, whose parts can be replaced."""
    parts: dict[str, bytes] = {
        "outer": b"IxM2" + struct.pack("<iqqq?i", d, n, 1 << 20, 1 << 20, True, 0),
        "inner": b"IxPq" + struct.pack("<iqqq?i", d, n, 1 << 20, 1 << 20, True, 0),
        "sizes": struct.pack("<QQQ", d, m, nbits),
        "centroids": vector(b"\0\0\x80\x3f" * ((1 << nbits) * d), 4),
        "codes": vector(bytes(n * -(-m * nbits // 8)), 1),
        "search": struct.pack("<i?i", 0, False, 0),
        "ids": vector(struct.pack(f"<{n}q", *range(n)), 8),
    }
    return b"".join({**parts, **lies}.values())


def vector(content: bytes, itemsize: int, count: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) // itemsize if count is None else count) + content


def file_of(index: bytes, codes: bytes = bytes(12), shape: tuple[int, ...] = (6, 2)) -> bytes:
    import numpy as np

    array = np.frombuffer(codes, np.uint8).reshape(shape)
    return pickle.dumps({"codes": array, "index": index, "shape": torch.Size((6, 8)), "m": 4, "nbits": 4})


def header(fourcc: bytes, d: int, n: int, metric: int = 0) -> bytes:
    return fourcc + struct.pack("<iqqq?i", d, n, 1 << 20, 1 << 20, True, metric)


INDEXES: dict[str, dict[str, bytes]] = {
    "2**61 centroids": {"centroids": vector(b"", 4, 1 << 61)},
    "2**64 - 1 codes": {"codes": vector(b"", 1, (1 << 64) - 1)},
    "2**40 ids": {"ids": vector(b"", 8, 1 << 40)},
    "few ids": {"ids": vector(bytes(8), 8)},
    "2**40 rows": {"outer": header(b"IxM2", 8, 1 << 40), "inner": header(b"IxPq", 8, 1 << 40)},
    "other rows inside": {"inner": header(b"IxPq", 8, 7)},
    "-1 rows": {"outer": header(b"IxM2", 8, -1), "inner": header(b"IxPq", 8, -1)},
    "no columns": {"outer": header(b"IxM2", 0, 6), "inner": header(b"IxPq", 0, 6)},
    "2**64 - 1 sub-spaces": {"sizes": struct.pack("<QQQ", 8, (1 << 64) - 1, 4)},
    "no sub-spaces": {"sizes": struct.pack("<QQQ", 8, 0, 4)},
    "3 sub-spaces": {"sizes": struct.pack("<QQQ", 8, 3, 4)},
    "2**63 bits": {"sizes": struct.pack("<QQQ", 8, 4, 1 << 63)},
    "no bits": {"sizes": struct.pack("<QQQ", 8, 4, 0)},
    "another metric": {"outer": header(b"IxM2", 8, 6, 4)},
    "a flat index": {"inner": header(b"IxFI", 8, 6)},
    "an index in an index": {"inner": header(b"IxM2", 8, 6)},
    "NaN": {"centroids": vector(b"\0\0\xc0\x7f" * 128, 4)},
    "1e38": {"centroids": vector(struct.pack("<f", 1e38) * 128, 4)},
}


def test_an_index_without_a_lie_is_read(path: Path):
    path.write_bytes(file_of(index_bytes(6, 8, 4, 4)))
    assert read_embzip(path).decode().tolist() == [[1.0] * 8] * 6


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_that_lies_is_refused(path: Path, name: str):
    refused(path, file_of(index_bytes(6, 8, 4, 4, **INDEXES[name])))


def test_an_index_cut_anywhere_is_refused(path: Path):
    whole = index_bytes(6, 8, 4, 4)
    for end in range(0, len(whole), 37):
        path.write_bytes(file_of(whole[:end]))
        with pytest.raises(gpuzip.FormatError):
            read_embzip(path)


ARRAYS: dict[str, Callable[[bytes], bytes]] = {
    "a shape of 2**62": lambda data: data.replace(
        b"K\x06K\x02\x86", b"\x8a\x08" + bytes(7) + b"\x40K\x00\x86"
    ),
    "a negative shape": lambda data: data.replace(
        b"K\x06K\x02\x86", b"J\xfa\xff\xff\xffJ\xfe\xff\xff\xff\x86"
    ),
    "another shape": lambda data: data.replace(b"K\x06K\x02\x86", b"K\x03K\x04\x86"),
    "objects": lambda data: data.replace(b"\x8c\x02u1", b"\x8c\x02O8"),
    "another type": lambda data: data.replace(b"\x8c\x02u1", b"\x8c\x02f4"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_lies_is_refused(path: Path, name: str):
    data = file_of(index_bytes(6, 8, 4, 4))
    forged = ARRAYS[name](data)
    assert forged != data
    refused(path, forged)


def with_dictionary(packed: bytes, code: int) -> bytes:
    """An xz file that asks for another dictionary: code 40 is 4 GB."""
    size = (packed[12] + 1) * 4
    head = bytearray(packed[12 : 12 + size - 4])
    assert head[2:4] == b"\x21\x01"  # the filter LZMA2 and one byte of settings
    head[4] = code
    return packed[:12] + head + struct.pack("<I", zlib.crc32(head)) + packed[12 + size :]


def test_lzma_bombs_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    good = file_of(index_bytes(6, 8, 4, 4))
    path.write_bytes(with_dictionary(lzma.compress(good), 22))  # 8 MB, as it was
    assert len(read_embzip(path)) == 6
    path.write_bytes(with_dictionary(lzma.compress(good), 40))

    def attempt(match: str) -> None:
        with pytest.raises(gpuzip.FormatError, match=match):
            read_embzip(path)

    assert peak_growth(lambda: attempt("Memory usage limit")) < 16 << 20
    monkeypatch.setattr("gpuzip.interop.embzip._FLOOR", 1 << 20)
    path.write_bytes(lzma.compress(bytes(64 << 20), preset=0))
    assert peak_growth(lambda: attempt("must unpack to at most 1,048,576 bytes")) < 16 << 20


def test_torch_files_that_lie_are_refused(path: Path):
    import zipfile

    whole = torch_file(
        {"codes": torch.zeros(6, 2, dtype=torch.uint8), "index": index_bytes(6, 8, 4, 4)}, False
    )
    path.write_bytes(whole)
    assert len(read_embzip(path)) == 6
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    for change in (
        {"data/0": b""},
        {"data/0": bytes(13)},
        {"data.pkl": parts["data.pkl"].replace(b"ByteStorage", b"LongStorage")},
        {"data.pkl": b"cos\nsystem\n(S'touch x'\ntR."},
        {"data.pkl": None},
        {"data/0": None},
    ):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, content in (parts | change).items():
                if content is not None:
                    archive.writestr(f"x/{name}", content)
        refused(path, out.getvalue())
    legacy = torch_file(
        {"codes": torch.zeros(6, 2, dtype=torch.uint8), "index": index_bytes(6, 8, 4, 4)}, True
    )
    path.write_bytes(legacy)
    assert len(read_embzip(path)) == 6
    at = len(legacy) - 12 - 8
    assert legacy[at : at + 8] == struct.pack("<q", 12)
    for size in (-1, 11, 13, 1 << 62, -(1 << 63)):
        refused(path, legacy[:at] + struct.pack("<q", size) + legacy[at + 8 :])
    refused(path, legacy[:at])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_and_a_device_are_not_waited_for(path: Path):
    os.mkfifo(path)
    for name in (path, Path("/dev/zero")):
        with pytest.raises(gpuzip.FormatError, match="must be a regular file"):
            read_embzip(name)
