"""Takes .ezip files apart, reassembles them with changes, and checks that they are refused."""

import hashlib
import json
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import gpuzip

try:
    import fsspec as fsspec
except ModuleNotFoundError:  # it comes with the extra `remote`
    fsspec = None

Reader = Callable[[Path], Any]


def load_opened(path: Path) -> Tensor:
    """`load` of a file that the caller opened, which is read as bytes and not mapped."""
    with path.open("rb") as file:
        return gpuzip.load(file)


def load_remote(path: Path) -> Tensor:
    """`load` of the same file behind a URL, whose header is read by ranges."""
    memory = fsspec.filesystem("memory")
    memory.pipe_file(str(path), path.read_bytes())
    try:
        return gpuzip.load(f"memory://{path}")
    finally:
        memory.rm_file(str(path))


READERS: list[Reader] = [gpuzip.load, gpuzip.open, gpuzip.info, load_opened]
READERS += [load_remote] if fsspec else []

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


@dataclass
class Forgery:
    """A file taken apart. `bytes` reassembles it with valid checksums. own_table: but with this `crc32`."""

    header: dict[str, Any]
    tensors: dict[str, tuple[str, list[int], bytes]]
    own_table: bool = False

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
        """Reassemble the file. edit, edit_outer: change gpuzip's and safetensors' header after sealing."""
        if isinstance(self.header.get("checksums"), dict):
            self.header["checksums"] |= checksums(self.header, self.tensors, self.own_table)
        bare = {name: value for name, value in self.header.items() if name != "digest"}
        self.header["digest"] = blake(canonical(bare).encode())
        outer: dict[str, Any] = {"__metadata__": {"gpuzip": edit(canonical(self.header))}}
        body = b""
        for name, (dtype, shape, raw) in self.tensors.items():
            outer[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(raw)]}
            body += raw
        text = edit_outer(json.dumps(outer))
        return joined(text + " " * (-len(text) % 8), body)


def checksums(
    header: dict[str, Any], tensors: dict[str, tuple[str, list[int], bytes]], own_table: bool
) -> dict[str, str]:
    """Right checksums of the tensors. Codes of format 2 have theirs by block: `crc32`, which is made anew."""
    content = {name: raw for name, (_, _, raw) in tensors.items()}
    if header.get("format") == 2 and "crc32" in tensors:
        planes = ["codes", *(name for name in (f"codes.{i}" for i in range(1, 9)) if name in tensors)]
        made = [crcs_of(header.get("block_rows"), *tensors.get(name, ("", [], b""))) for name in planes]
        columns = [crcs for crcs in made if crcs is not None]
        if len(columns) == len(planes) and not own_table:
            raw = b"".join(crc for block in zip(*columns, strict=True) for crc in block)
            tensors["crc32"] = ("U8", [len(raw) // 4 // len(planes), len(planes), 4], raw)
        table = tensors["crc32"][2]
        for i, name in enumerate(planes):
            content[name] = b"".join(table[at : at + 4] for at in range(4 * i, len(table), 4 * len(planes)))
        del content["crc32"]
    if {"stream", "blocks"} <= set(tensors):
        if not own_table:
            tensors["blocks"] = (*tensors["blocks"][:2], crcs_of_blocks(tensors))
        content["stream"] = tensors["blocks"][2]
        del content["blocks"]
    kinds = {name: f"torch.{TORCH[dtype]}{tuple(shape)}" for name, (dtype, shape, _) in tensors.items()}
    return {name: blake(kinds[name].encode() + raw) for name, raw in content.items() if name in kinds}


def crcs_of(block_rows: object, _: str, shape: list[int], raw: bytes) -> list[bytes] | None:
    """CRC-32 of each block of rows, as bytes; None if there are none to be made."""
    if type(block_rows) is not int or block_rows < 1 or len(shape) != 2 or len(raw) != shape[0] * shape[1]:
        return None
    step = block_rows * max(1, shape[1])
    parts = [raw[at : at + step] for at in range(0, len(raw), step)]
    return [zlib.crc32(part).to_bytes(4, "little") for part in parts]


def crcs_of_blocks(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    """The table of an archive's blocks, of the lengths that it has, with checksums that are right."""
    table, stream, at = bytearray(tensors["blocks"][2]), tensors["stream"][2], 0
    for place in range(0, len(table) - 7, 8):
        length = int.from_bytes(table[place : place + 4], "little")
        table[place + 4 : place + 8] = zlib.crc32(stream[at : at + length]).to_bytes(4, "little")
        at += length
    return bytes(table)


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def blake(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def joined(outer: str, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(outer.encode())) + outer.encode() + body


def peak_growth(call: Callable[[], object]) -> int:
    """Return by how many bytes this process's memory grew during a call."""
    status = Path("/proc/self/status")

    def field(name: str) -> int:
        return int(status.read_text().partition(name)[2].split()[1]) * 1024

    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the present size
    except OSError:
        call()
        return 0
    before = field("VmRSS")
    call()
    return field("VmHWM") - before


def check_refused(path: Path, read: Reader, match: str = "") -> None:
    """Check that reading raises a FormatError that names the file and matches, in 64 MB and 3 s of work."""

    def attempt() -> None:
        with pytest.raises(gpuzip.FormatError, match=match or None) as caught:
            read(path)
        assert str(path) in str(caught.value), f"{path} is not named in: {caught.value}"

    start = time.process_time()  # whatever else the machine does
    assert peak_growth(attempt) < 64 << 20
    assert time.process_time() - start < 3


def check_all_refuse(path: Path, data: bytes, match: str = "") -> None:
    path.write_bytes(data)
    for read in READERS:
        check_refused(path, read, match)


def outcomes(path: Path, variants: list[bytes], read: Reader = gpuzip.load) -> set[str]:
    """Return the outcomes of reading each variant: an error's name, "rows" if correct, or "wrong rows"."""
    seen = set()
    for data in variants:
        path.unlink(missing_ok=True)  # overwriting a file makes ext4 flush it, which takes 2 ms
        path.write_bytes(data)
        try:
            result = read(path)
            seen.add("rows" if isinstance(result, Tensor) and result.tolist() == ROWS else "wrong rows")
        except Exception as error:
            seen.add(type(error).__name__ if str(path) in str(error) else f"nameless {error!r}")
    return seen


def check_codec_refused(path: Path, data: bytes, match: str = "") -> None:
    """Check that readers of rows refuse the file. `info` does not need the codec."""
    path.write_bytes(data)
    for read in (read for read in READERS if read is not gpuzip.info):
        check_refused(path, read, match)
