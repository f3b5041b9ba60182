"""The .ezip file: safetensors with a header that describes the codes and their measured quality.

Tensors: `codes` (N, B) uint8 and one `state.<name>` for each tensor of the codec. Codes that are split by
columns continue in `codes.1`, `codes.2` and so on.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from gpuzip._core.planes import Planes
from gpuzip._core.quality import Quality
from gpuzip._version import __version__
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage.atomic import replacing
from gpuzip.storage.header import sealed, unsealed
from gpuzip.storage.info import FileInfo, check_cosine
from gpuzip.storage.paths import local_path
from gpuzip.storage.streams import Source, Target, contents, name_of, opened
from gpuzip.storage.tensors import read_tensors, tensors_of, write_tensors


@dataclass(frozen=True)
class Contents:
    """The header and tensors of a file. Tensors are mapped, so bytes are read on access."""

    info: FileInfo
    codes: Tensor | Planes
    state: dict[str, Tensor]


def check_target(path: Target) -> Path | BinaryIO:
    """The path or file to write to.

    Raises IsADirectoryError for a folder, GpuzipError for a device or a pipe, TypeError for a file of text.
    """
    if (file := opened(path)) is not None:
        return file
    target = local_path("save", path)
    if target.is_dir():
        raise IsADirectoryError(
            f"save: {target} must be a file; it is a folder. Add a file name, such as {target / 'x.ezip'}."
        )
    if target.exists() and not target.is_file():
        raise GpuzipError(
            f"save: {target} must be a regular file; it is a device, pipe or socket. Save to a file and copy "
            "that there."
        )
    return target


def write_codes(
    path: Target,
    *,
    data: Planes,
    codec_id: str,
    config: dict[str, Any],
    state: dict[str, Tensor],
    d: int,
    dtype: torch.dtype,
    quality: Quality | None,
) -> FileInfo:
    """Write one file atomically, parent folders made; or to a file that is open.

    Raises as `check_target` does.
    """
    target = check_target(path)
    tensors = dict(zip(_names(len(data.parts)), data.parts, strict=True))
    tensors |= {f"state.{name}": t for name, t in state.items()}
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    header = {
        "library": __version__,
        "codec": codec_id,
        "config": config,
        "n": len(data),
        "d": d,
        "dtype": str(dtype).removeprefix("torch."),
        "quality": None if quality is None else quality.to_json(),
        "checksums": {name: _checksum(t) for name, t in tensors.items()},
    }
    metadata = sealed(header)
    if isinstance(target, Path):
        with replacing(target) as fresh, open(fresh, "wb") as out:
            nbytes = write_tensors(out, tensors, metadata)
    else:
        nbytes, target = write_tensors(target, tensors, metadata), name_of(target)
    return _info(target, unsealed(target, metadata), nbytes)


def read_info(path: Source) -> FileInfo:
    """The header alone. Raises FileNotFoundError, IsADirectoryError or FormatError."""
    return _read(path)[0]


def read_codes(path: Source, *, verify: bool, min_cosine: float | None = None) -> Contents:
    """Header and mapped tensors. verify=True reads and checks every byte, else the codes are trusted.

    min_cosine: lower bound for the stored mean cosine of rows; a worse file raises QualityError.
    Raises FileNotFoundError, IsADirectoryError or FormatError. Sizes are checked against the file before
    memory is allocated.
    """
    info, tensors, checksums = _read(path)
    if min_cosine is not None:
        check_cosine(info, min_cosine)
    for name, tensor in tensors.items():
        if (verify or _of_state(name)) and _checksum(tensor) != checksums[name]:
            raise FormatError(
                f"{info.path}: {name} does not match its checksum. The file is damaged: restore it or "
                "save it again."
            )
        if _of_state(name) and tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise FormatError(f"{info.path}: {name} holds NaN or inf; gpuzip did not write it.")
    parts = [tensors[name] for name in _names(len(tensors)) if name in tensors]
    codes = parts[0] if len(parts) == 1 else Planes(parts)
    return Contents(
        info, codes, {name.removeprefix("state."): t for name, t in tensors.items() if _of_state(name)}
    )


def _names(count: int) -> list[str]:
    """Return the tensor names of `count` code planes."""
    return ["codes", *(f"codes.{i}" for i in range(1, count))]


def _of_state(name: str) -> bool:
    return name.startswith("state.")


def _regular_file(path: Any) -> Path:
    source = local_path("open", path)
    if source.is_dir():
        raise IsADirectoryError(
            f"open: {source} must be a file; it is a folder. Use gpuzip.open_mixed for a folder "
            "of MixedCodes, gpuzip.WordVectors.load for one of word vectors."
        )
    if not source.exists():
        raise FileNotFoundError(f"open: there is no file {source}.")
    if not source.is_file():
        raise FormatError(f"{source}: must be a regular file; it is a device or pipe.")
    return source


def _read(path: Source) -> tuple[FileInfo, dict[str, Tensor], dict[str, str]]:
    if given := contents(path):
        source, nbytes = given[0], len(given[1])
        tensors, metadata = tensors_of(given[1], source)
    else:
        source = _regular_file(path)
        tensors, metadata = read_tensors(source)
        nbytes = source.stat().st_size
    header = unsealed(source, metadata)
    names = set(tensors)
    if names != set(header["checksums"]) or "codes" not in names:
        raise FormatError(
            f"{source}: must hold the tensors that its header lists; it holds {sorted(names)[:9]}."
        )
    parts = [name for name in names if not _of_state(name)]
    if set(parts) != set(_names(len(parts))):
        raise FormatError(
            f"{source}: must hold codes and a state; it holds {sorted(names)[:9]}. gpuzip did not write it."
        )
    for codes in (tensors[name] for name in parts):
        if codes.dtype != torch.uint8 or codes.ndim != 2 or len(codes) != header["n"] or not codes.shape[1]:
            raise FormatError(
                f"{source}: codes must be ({header['n']}, B) uint8, as in the header; got "
                f"{tuple(codes.shape)} {codes.dtype}."
            )
    return _info(source, header, nbytes), tensors, header["checksums"]


def _info(path: Path, header: dict[str, Any], nbytes: int) -> FileInfo:
    quality = header["quality"]
    return FileInfo(
        path=path,
        nbytes=nbytes,
        n=header["n"],
        d=header["d"],
        dtype=getattr(torch, header["dtype"]),
        codec=header["codec"],
        config=header["config"],
        quality=None if quality is None else Quality(**quality),
        library=header["library"],
        format=header["format"],
    )


def _checksum(tensor: Tensor) -> str:
    digest = hashlib.blake2b(f"{tensor.dtype}{tuple(tensor.shape)}".encode(), digest_size=16)
    if tensor.numel():
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
