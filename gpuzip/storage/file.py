"""One file of codes: a safetensors file whose metadata says what it holds, how good it is, and its checksums.

Tensors: `codes` (N, B) uint8 and one `state.<name>` for each tensor of the codec. The metadata has
one entry, "gpuzip", a JSON object:

    format    1; a reader refuses a greater one
    library   version that wrote the file
    codec     the codec's id, and `config`, its settings
    n, d      rows and columns of the source, and `dtype`, its type
    quality   measured against the source, or null
    checksums BLAKE2b-128 of every tensor's dtype, shape and bytes
    digest    BLAKE2b-128 of this object without `digest`, keys sorted, no spaces
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from gpuzip._version import __version__
from gpuzip.errors import FormatError
from gpuzip.quality import Quality
from gpuzip.storage.atomic import replacing
from gpuzip.storage.info import FileInfo
from gpuzip.storage.tensors import read_tensors

FORMAT = 1

_KEY = "gpuzip"
_FIELDS = {"format", "library", "codec", "config", "n", "d", "dtype", "quality", "checksums", "digest"}
_DTYPES = {"float16", "bfloat16", "float32", "float64"}


@dataclass(frozen=True)
class Contents:
    """A file's header and tensors, mapped: bytes are read when they are touched."""

    info: FileInfo
    codes: Tensor
    state: dict[str, Tensor]


def check_target(path: str | os.PathLike[str]) -> Path:
    """The path to write to; raises IsADirectoryError for a folder."""
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(
            f"save: {target} is a folder, a file name is needed. Add one, such as {target / 'x.ezip'}."
        )
    return target


def write_codes(
    path: str | os.PathLike[str],
    *,
    data: Tensor,
    codec_id: str,
    config: dict[str, Any],
    state: dict[str, Tensor],
    d: int,
    dtype: torch.dtype,
    quality: Quality | None,
) -> FileInfo:
    """Write one file atomically, parent folders made; raises IsADirectoryError for a folder."""
    target = check_target(path)
    tensors = {"codes": data} | {f"state.{name}": t for name, t in state.items()}
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    header: dict[str, Any] = {
        "format": FORMAT,
        "library": __version__,
        "codec": codec_id,
        "config": config,
        "n": len(data),
        "d": d,
        "dtype": str(dtype).removeprefix("torch."),
        "quality": None if quality is None else quality.to_json(),
        "checksums": {name: _checksum(t) for name, t in tensors.items()},
    }
    header["digest"] = _digest(header)
    with replacing(target) as fresh:
        try:
            save_file(tensors, fresh, {_KEY: _canonical(header)})
        except SafetensorError as error:
            raise OSError(f"save: {target} could not be written: {error}") from error
    return _info(target, header)


def read_info(path: str | os.PathLike[str]) -> FileInfo:
    """The header alone. Raises FileNotFoundError, IsADirectoryError or FormatError."""
    return _read(path)[0]


def read_codes(path: str | os.PathLike[str], *, verify: bool) -> Contents:
    """Header and mapped tensors. verify=True reads and checks every byte, else the codes are trusted.

    Raises FileNotFoundError, IsADirectoryError or FormatError; sizes are checked against the file
    before anything is allocated for them.
    """
    info, tensors, checksums = _read(path)
    for name, tensor in tensors.items():
        if (verify or name != "codes") and _checksum(tensor) != checksums[name]:
            raise FormatError(
                f"{info.path}: {name} does not match its checksum; the file is damaged. Restore or remake it."
            )
        if name != "codes" and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise FormatError(f"{info.path}: {name} holds NaN or inf; gpuzip did not write it.")
    codes = tensors.pop("codes")
    return Contents(info, codes, {name.removeprefix("state."): t for name, t in tensors.items()})


def _read(path: str | os.PathLike[str]) -> tuple[FileInfo, dict[str, Tensor], dict[str, str]]:
    source = Path(path)
    if source.is_dir():
        raise IsADirectoryError(f"open: {source} is a folder, a file is needed.")
    if not source.exists():
        raise FileNotFoundError(f"open: there is no file {source}.")
    if not source.is_file():
        raise FormatError(f"{source}: a device or pipe, a file is needed.")
    tensors, metadata = read_tensors(source)
    header = _parse(source, metadata)
    names = set(tensors)
    if names != set(header["checksums"]) or "codes" not in names:
        raise FormatError(f"{source}: holds tensors {sorted(names)[:9]}, not those its header lists.")
    if not all(name == "codes" or name.startswith("state.") for name in names):
        raise FormatError(f"{source}: holds tensors {sorted(names)[:9]}; gpuzip did not write it.")
    codes = tensors["codes"]
    if codes.dtype != torch.uint8 or codes.ndim != 2 or len(codes) != header["n"] or not codes.shape[1]:
        raise FormatError(
            f"{source}: codes are {tuple(codes.shape)} {codes.dtype}, ({header['n']}, B) uint8 was announced."
        )
    return _info(source, header), tensors, header["checksums"]


def _parse(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    if _KEY not in metadata:
        raise FormatError(
            f"{path}: a safetensors file that gpuzip did not write. Compress it with gpuzip.save."
        )
    try:
        header = json.loads(metadata[_KEY])
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: its header is not JSON; the file is damaged.") from error
    if not isinstance(header, dict) or type(header.get("format")) is not int or header["format"] < 1:
        raise FormatError(f"{path}: its header has no format number; the file is damaged.")
    if header["format"] > FORMAT:
        raise FormatError(
            f"{path}: format {header['format']} is newer than this version reads ({FORMAT}). Upgrade gpuzip."
        )
    try:
        sealed = set(header) == _FIELDS and header["digest"] == _digest(header)
        sealed = sealed and metadata[_KEY] == _canonical(header)
    except (ValueError, RecursionError):  # numbers that are none, or too deep
        sealed = False
    if not sealed:
        raise FormatError(f"{path}: its header does not match its checksum; the file is damaged.")
    if not _plausible(header):
        raise FormatError(f"{path}: its header holds values of the wrong kind; gpuzip did not write it.")
    return header


def _plausible(header: dict[str, Any]) -> bool:
    checksums = header["checksums"]
    return (
        all(type(header[name]) is int and header[name] >= 0 for name in ("n", "d"))
        and all(isinstance(header[name], str) for name in ("library", "codec"))
        and isinstance(header["dtype"], str)
        and header["dtype"] in _DTYPES
        and (header["quality"] is None or Quality.is_json(header["quality"]))
        and isinstance(header["config"], dict)
        and isinstance(checksums, dict)
        and all(isinstance(value, str) for value in checksums.values())
    )


def _info(path: Path, header: dict[str, Any]) -> FileInfo:
    quality = header["quality"]
    return FileInfo(
        path=path,
        nbytes=path.stat().st_size,
        n=header["n"],
        d=header["d"],
        dtype=getattr(torch, header["dtype"]),
        codec=header["codec"],
        config=header["config"],
        quality=None if quality is None else Quality(**quality),
        library=header["library"],
        format=header["format"],
    )


def _canonical(header: dict[str, Any]) -> str:
    return json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _digest(header: dict[str, Any]) -> str:
    bare = {name: value for name, value in header.items() if name != "digest"}
    return hashlib.blake2b(_canonical(bare).encode(), digest_size=16).hexdigest()


def _checksum(tensor: Tensor) -> str:
    digest = hashlib.blake2b(f"{tensor.dtype}{tuple(tensor.shape)}".encode(), digest_size=16)
    if tensor.numel():
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
