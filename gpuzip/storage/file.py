"""The .ezip file: safetensors with a header that describes the codes and their measured quality.

Tensors: `codes` (N, B) uint8, `crc32` with the checksums of their blocks, and one `state.<name>` for each
tensor of the codec. Codes that are split by columns continue in `codes.1`, `codes.2` and so on. `archive.py`
says what an archive has instead.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from gpuzip._core.planes import Planes
from gpuzip._core.quality import Quality
from gpuzip._version import __version__
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.storage import paging
from gpuzip.storage.archive import (
    BLOCKS,
    MODEL,
    STREAM,
    Blocks,
    Kept,
    UnverifiedBlocks,
    blocks_of,
    check_archive,
    is_archive,
    kept_of,
    tensors_of_archive,
)
from gpuzip.storage.atomic import replacing
from gpuzip.storage.blocks import Unverified, plane_names, rows_per_block, table_of, table_shape
from gpuzip.storage.folder import MANIFEST
from gpuzip.storage.header import sealed, unsealed
from gpuzip.storage.info import FileInfo, check_cosine
from gpuzip.storage.joined import Joined
from gpuzip.storage.paths import local_path
from gpuzip.storage.remote import Remote, remote, replacing_remote
from gpuzip.storage.remote_tensors import RemoteTensors
from gpuzip.storage.streams import Source, Target, contents, name_of, opened
from gpuzip.storage.tensors import Pieces, read_tensors, tensors_of, write_tensors

_TABLE = "crc32"  # behind `codes` in the file, which keeps the alignment of theirs


@dataclass(frozen=True)
class Contents:
    """The header and tensors of a file. Tensors are mapped, so bytes are read on access.

    unverified: the blocks of codes to verify before they are read, and of a remote file to fetch; None if
    all are, or have no checksums.
    """

    info: FileInfo
    codes: Tensor | Planes
    state: dict[str, Tensor]
    unverified: Unverified | None


@dataclass(frozen=True)
class ArchiveContents:
    """The header and parts of a file that holds an archive. The stream is mapped.

    unverified: the blocks to verify before they are read.
    """

    info: FileInfo
    blocks: Blocks
    model: bytes
    kept: Kept | None
    unverified: UnverifiedBlocks


def check_target(path: Target) -> Path | BinaryIO | Remote:
    """The path or file to write to, or the remote file of a URL.

    Raises IsADirectoryError for a folder, GpuzipError for a device or a pipe, TypeError for a file of text.
    """
    there = remote("save", path)
    if isinstance(there, Remote):
        there.check_writable()
        return there
    return local_target(path if there is None else there)


def local_target(path: Target) -> Path | BinaryIO:
    """`check_target` of this computer alone. Raises GpuzipError for a URL, too."""
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


def folder_of(path: Source) -> Path | None:
    """The folder of gpuzip's that a path or a file:// URL names; else None."""
    there = remote("open", path)
    if there is None and isinstance(path, str | os.PathLike):
        there = local_path("open", path)
    return there if isinstance(there, Path) and (there / MANIFEST).is_file() else None


def write_codes(
    path: Target,
    *,
    data: Planes | Joined,
    codec_id: str,
    config: dict[str, Any],
    state: dict[str, Tensor],
    d: int,
    dtype: torch.dtype,
    quality: Quality | None,
) -> FileInfo:
    """Write one file atomically, parent folders made; to a file that is open; or to a URL.

    Raises as `check_target` does.
    """
    state = {f"state.{name}": _on_cpu(t) for name, t in state.items()}
    if isinstance(data, Joined):
        planes: list[Any] = list(data.planes)
        block_rows, table = rows_per_block(sum(plane.shape[1] for plane in planes)), data.table
    else:
        planes, block_rows = [_on_cpu(part) for part in data.parts], rows_per_block(data.shape[1])
        table = table_of(planes, block_rows)
    about = {"codec": codec_id, "config": config, "n": planes[0].shape[0], "d": d, "block_rows": block_rows}
    checksums = _checksums_of_planes(planes, table) | {name: _checksum(t) for name, t in state.items()}
    tensors = dict(zip(plane_names(len(planes)), planes, strict=True)) | {_TABLE: table} | state
    return _write(path, tensors, about | {"checksums": checksums}, dtype, quality)


def write_archive(
    path: Target,
    *,
    blocks: Blocks,
    model: bytes,
    kept: Kept | None,
    codec_id: str,
    config: dict[str, Any],
    n: int,
    d: int,
    dtype: torch.dtype,
    quality: Quality | None,
) -> FileInfo:
    """Write an archive as `write_codes` writes codes."""
    tensors = {name: _on_cpu(part) for name, part in tensors_of_archive(blocks, model, kept).items()}
    about = {"codec": codec_id, "config": config, "n": n, "d": d, "block_rows": blocks.rows}
    return _write(path, tensors, about | {"checksums": _checksums_of_archive(tensors)}, dtype, quality)


def _write(
    path: Target,
    tensors: Mapping[str, Tensor | Pieces],
    about: dict[str, Any],
    dtype: torch.dtype,
    quality: Quality | None,
) -> FileInfo:
    target = check_target(path)
    kind = str(dtype).removeprefix("torch.")
    measured = None if quality is None else quality.to_json()
    metadata = sealed(about | {"library": __version__, "dtype": kind, "quality": measured})
    if isinstance(target, Path):
        with replacing(target) as fresh, open(fresh, "wb") as out:
            nbytes = write_tensors(out, tensors, metadata)
        return _info(target, unsealed(target, metadata), nbytes)
    if isinstance(target, Remote):
        with replacing_remote(target) as out:
            nbytes = write_tensors(out, tensors, metadata)
        return _info(target.name, unsealed(target.name, metadata), nbytes)
    nbytes, name = write_tensors(target, tensors, metadata), name_of(target)
    return _info(name, unsealed(name, metadata), nbytes)


def read_info(path: Source) -> FileInfo:
    """The header alone. Raises FileNotFoundError, IsADirectoryError or FormatError."""
    return _read(path)[0]


def read_file(path: Source, *, verify: bool, min_cosine: float | None = None) -> Contents | ArchiveContents:
    """Header and mapped tensors, of codes or of an archive. verify=True reads and verifies every byte.

    min_cosine: lower bound for the stored mean cosine of rows; a worse file raises QualityError.
    Raises FileNotFoundError, IsADirectoryError or FormatError. Sizes are checked against the file before
    memory is allocated.
    """
    info, header, tensors, there = _read(path)
    if min_cosine is not None:
        check_cosine(info, min_cosine)
    if is_archive(set(tensors)):
        return _archive(info, header, tensors, there, verify)
    checksums, unverified, fetch = header["checksums"], None, None
    names = [name for name in plane_names(len(tensors)) if name in tensors]
    if there is not None:
        verify = verify or info.format == 1  # whose codes have one checksum, and are fetched at once
        tensors, fetch = there.read(() if info.format == 1 else names), there.fetch_of(names)
    elif info.format > 1 and not verify:
        _read_by_blocks(tensors, names)
    planes = [tensors[name] for name in names]
    if info.format == 1:
        found = {name: _checksum(tensors[name]) for name in names if verify}
    else:
        table = tensors[_TABLE]
        found = _checksums_of_planes(planes, table)
        unverified = Unverified(info.path, planes, table, header["block_rows"], fetch)
    state = {name: tensor for name, tensor in tensors.items() if _of_state(name)}
    _check(info.path, found | {name: _checksum(t) for name, t in state.items()}, checksums)
    if unverified is not None and verify:
        unverified.verify(slice(0, info.n))
        unverified = None
    _check_finite(info.path, state)
    return Contents(
        info,
        planes[0] if len(planes) == 1 else Planes(planes),
        {name.removeprefix("state."): t for name, t in state.items()},
        unverified,
    )


def read_codes(path: Source, *, verify: bool) -> Contents:
    """`read_file` of a file of codes. Raises FormatError for one of an archive."""
    found = read_file(path, verify=verify)
    if isinstance(found, ArchiveContents):
        raise FormatError(f"{found.info.path}: must hold codes; it holds an archive.")
    return found


def _archive(
    info: FileInfo,
    header: dict[str, Any],
    tensors: dict[str, Tensor],
    there: RemoteTensors | None,
    verify: bool,
) -> ArchiveContents:
    fetch = None
    if there is not None:
        tensors, fetch = there.read([STREAM]), there.fetch_of([STREAM])
    elif not verify:
        _read_by_blocks(tensors, [STREAM])
    _check(info.path, _checksums_of_archive(tensors), header["checksums"])
    blocks = blocks_of(info.path, tensors, header["block_rows"])
    unverified = UnverifiedBlocks(info.path, blocks, tensors[BLOCKS], fetch)
    if verify:
        unverified.verify(range(len(blocks)))
    kept = kept_of(info.path, tensors, info.n)
    return ArchiveContents(info, blocks, tensors[MODEL].numpy().tobytes(), kept, unverified)


def _read_by_blocks(tensors: dict[str, Tensor], codes: list[str]) -> None:
    """Read the blocks of codes that are verified, and not what lies around them; all else is read now."""
    pages = {name: tensor.reshape(-1).view(torch.uint8).numpy() for name, tensor in tensors.items()}
    paging.touched_alone(pages.values())
    paging.soon(of for name, of in pages.items() if name not in codes)


def _check(path: Path | str, found: dict[str, str], checksums: dict[str, str]) -> None:
    for name, checksum in found.items():
        if checksum != checksums[name]:
            raise FormatError(
                f"{path}: {name} does not match its checksum. The file is damaged: restore it or save it "
                "again."
            )


def _check_finite(path: Path | str, state: dict[str, Tensor]) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise FormatError(f"{path}: {name} holds NaN or inf; gpuzip did not write it.")


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


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


def _read(path: Source) -> tuple[FileInfo, dict[str, Any], dict[str, Tensor], RemoteTensors | None]:
    """What the header says, and the tensors; of a remote file, which comes last, only their kinds."""
    source: Path | str
    there, far = remote("open", path), None
    if isinstance(there, Remote):
        far = RemoteTensors.of(there)
        source, nbytes, tensors, metadata = there.name, far.nbytes, far.kinds, far.metadata
    elif given := contents(path):
        source, nbytes = given[0], len(given[1])
        tensors, metadata = tensors_of(given[1], source)
    else:
        source = _regular_file(path if there is None else there)
        tensors, metadata = read_tensors(source)
        nbytes = source.stat().st_size
    header = unsealed(source, metadata)
    _check_tensors(source, header, tensors)
    return _info(source, header, nbytes), header, tensors, far


def _check_tensors(source: Path | str, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Raise FormatError unless these are codes, their table and a state, as the header describes them."""
    if is_archive(set(tensors)):
        check_archive(source, header, tensors)
        return
    names, tables = set(tensors), {_TABLE} if header["format"] > 1 else set()
    if names - tables != set(header["checksums"]) or not {"codes"} | tables <= names:
        raise FormatError(
            f"{source}: must hold the tensors that its header lists; it holds {sorted(names)[:9]}."
        )
    parts = [name for name in names - tables if not _of_state(name)]
    if set(parts) != set(plane_names(len(parts))):
        raise FormatError(
            f"{source}: must hold codes and a state; it holds {sorted(names)[:9]}. gpuzip did not write it."
        )
    for codes in (tensors[name] for name in parts):
        if codes.dtype != torch.uint8 or codes.ndim != 2 or len(codes) != header["n"] or not codes.shape[1]:
            raise FormatError(
                f"{source}: codes must be ({header['n']}, B) uint8, as in the header; got "
                f"{tuple(codes.shape)} {codes.dtype}."
            )
    if tables:
        _check_table(source, tensors[_TABLE], table_shape(header["n"], len(parts), header["block_rows"]))


def _check_table(source: Path | str, table: Tensor, shape: tuple[int, ...]) -> None:
    if table.dtype != torch.uint8 or tuple(table.shape) != shape:
        raise FormatError(
            f"{source}: {_TABLE} must be {shape} uint8 for its blocks of rows; got {tuple(table.shape)} "
            f"{table.dtype}. gpuzip did not write it."
        )


def _info(path: Path | str, header: dict[str, Any], nbytes: int) -> FileInfo:
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


def _checksums_of_planes(planes: list[Any], table: Tensor) -> dict[str, str]:
    """Checksums of codes by name, from those of their blocks."""
    names = plane_names(len(planes))
    return {name: _digest(planes[i], table[:, i].contiguous()) for i, name in enumerate(names)}


def _checksums_of_archive(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Checksums by name; in place of the stream's bytes, those of the table of its blocks."""
    own = {name: _checksum(tensor) for name, tensor in tensors.items() if name not in (STREAM, BLOCKS)}
    return own | {STREAM: _digest(tensors[STREAM], tensors[BLOCKS])}


def _checksum(tensor: Tensor) -> str:
    return _digest(tensor, tensor)


def _digest(of: Tensor | Pieces, content: Tensor) -> str:
    """BLAKE2b-128 of the dtype and shape of one tensor and the bytes of another."""
    digest = hashlib.blake2b(f"{of.dtype}{tuple(of.shape)}".encode(), digest_size=16)
    if content.numel():
        digest.update(content.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
