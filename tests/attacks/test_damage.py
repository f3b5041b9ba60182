"""Files of others, truncated files and files with changed bits are refused by name."""

import io
import os
import pickle
import random
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import gpuzip
from tests.attacks.forge import (
    ROWS,
    Forgery,
    N,
    check_all_refuse,
    check_refused,
    fsspec,
    joined,
    load_opened,
    load_remote,
    outcomes,
    peak_growth,
)


def test_reads_a_forgery_that_changes_nothing(original: bytes, path: Path):
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
def test_refuses_what_is_not_safetensors(path: Path, name: str):
    check_all_refuse(path, STRANGERS[name], "cannot be read as safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"GPUZIP": "{}"}])
def test_refuses_safetensors_files_of_others(path: Path, metadata: dict[str, str] | None):
    save_file({"codes": torch.zeros(3, 2, dtype=torch.uint8)}, path, metadata)
    check_all_refuse(path, path.read_bytes(), "must be written by gpuzip")


class Touches:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.marker,)


def test_never_loads_a_pickle(path: Path, tmp_path: Path):
    marker, saved = tmp_path / "marker", io.BytesIO()
    torch.save({"codes": Touches(marker)}, saved)
    pickle.loads(pickle.dumps(Touches(marker)))
    assert marker.exists()  # the pickle works
    marker.unlink()
    for data in (pickle.dumps(Touches(marker)), pickle.dumps(Touches(marker), 0), saved.getvalue()):
        check_all_refuse(path, data)
    assert not marker.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_refuses_a_pipe_without_waiting(path: Path):
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR)  # otherwise a reader that opens it would hang
    try:
        for read in (gpuzip.load, gpuzip.open, gpuzip.info):
            check_refused(path, read, "must be a regular file")
    finally:
        os.close(end)


def test_refuses_a_file_truncated_anywhere(original: bytes, path: Path):
    sizes = [*range(0, len(original), 97), *range(len(original) - 12, len(original))]
    for size in sizes:
        check_all_refuse(path, original[:size], "cannot be read as safetensors")


def test_refuses_extra_bytes_at_the_end(original: bytes, path: Path):
    for more in (b"\0", original):
        check_all_refuse(path, original + more)


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


@pytest.mark.full
def test_finds_every_flipped_bit(original: bytes, path: Path):
    variants = [flipped(original, bit) for bit in range(8 * len(original))]
    assert outcomes(path, variants) == {"FormatError"}
    assert outcomes(path, variants[::7], load_opened) == {"FormatError"}
    assert not fsspec or outcomes(path, variants[::7], load_remote) == {"FormatError"}


#: One bit of so many is flipped.
EVERY = pytest.mark.parametrize("every", [17, pytest.param(5, marks=pytest.mark.full)])


@EVERY
def test_open_finds_every_flipped_bit_outside_the_codes(original: bytes, path: Path, every: int):
    table = 8 * len(original) - 8 * 4
    codes = range(table - 8 * N, table)
    others = [bit for bit in range(0, 8 * len(original), every) if bit not in codes]
    assert outcomes(path, [flipped(original, bit) for bit in others], gpuzip.open) == {"FormatError"}
    in_codes = [flipped(original, bit) for bit in codes]
    assert outcomes(path, in_codes, lambda p: gpuzip.open(p, verify=True)) == {"FormatError"}
    assert outcomes(path, in_codes, lambda p: gpuzip.open(p).decode()) == {"FormatError"}


@EVERY
def test_finds_every_flipped_bit_of_a_file_of_format_1(path: Path, every: int):
    data = (Path(__file__).parents[1] / "golden" / "bits4.ezip").read_bytes()
    variants = [flipped(data, bit) for bit in range(0, 8 * len(data), every)]
    assert outcomes(path, variants) == {"FormatError"}
    codes = range(8 * (len(data) - 9 * 3), 8 * len(data))
    in_codes = [flipped(data, bit) for bit in codes]
    assert outcomes(path, in_codes, lambda p: gpuzip.open(p, verify=True)) == {"FormatError"}


def test_finds_moved_repeated_and_lost_pieces(original: bytes, path: Path):
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


def test_helpers_detect_memory_growth_and_valid_files(tmp_path: Path):
    """peak_growth sees 100 MB, and check_refused fails for a valid file."""
    if Path("/proc/self/clear_refs").exists():
        assert peak_growth(lambda: np.ones(100 << 20, np.uint8)) > 64 << 20
    with pytest.raises(pytest.fail.Exception):
        check_refused(tmp_path, lambda _: None)

    def nameless(path: Path) -> None:
        raise gpuzip.FormatError("some file is damaged")

    with pytest.raises(AssertionError, match=re.escape(str(tmp_path))):
        check_refused(tmp_path, nameless)
