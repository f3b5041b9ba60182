"""The one-call functions: quantize, save, load, open, info."""

from __future__ import annotations

import os
from typing import Any, overload

import torch
from torch import Tensor

from gpuzip.budget import Importance, fit_budget
from gpuzip.codecs import ProductQuantizer, codec_class
from gpuzip.codes import Codes
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.mixed import KIND, MixedCodes
from gpuzip.rows import Matrix, is_whole, whole
from gpuzip.storage import FileInfo, check_target, read_codes, read_info
from gpuzip.storage.folder import Folder, read_folder
from gpuzip.storage.tensors import read_tensors


@overload
def compress(
    x: Matrix,
    m: int | None = ...,
    nbits: int | None = ...,
    *,
    pad: bool = ...,
    seed: int = ...,
    max_bytes: int | str | None = ...,
    bits_per_dim: float | None = ...,
    importance: None = ...,
) -> Codes: ...


@overload
def compress(
    x: Matrix,
    *,
    seed: int = ...,
    max_bytes: int | str | None = ...,
    bits_per_dim: float | None = ...,
    importance: Importance,
    max_bits: int = ...,
) -> MixedCodes: ...


def compress(
    x: Matrix,
    m: int | None = None,
    nbits: int | None = None,
    *,
    pad: bool = False,
    seed: int = 0,
    max_bytes: int | str | None = None,
    bits_per_dim: float | None = None,
    importance: Importance | None = None,
    max_bits: int = 8,
) -> Codes | MixedCodes:
    """Train a quantizer on x and encode x with it: by product quantization, or to fit a budget.

    x: (N, D) float tensor, array or memory map. m: sub-quantizers, by default the divisor of D
    nearest D // 16. nbits: bits for each, 1 to 16, by default 4; there must be 2**nbits rows. pad: allow m
    that does not divide D. The same seed gives the same bytes.

    With a budget values take Lloyd-Max codes: with as many bits for each dimension as lower the error most.
    max_bytes: of the saved file, with its header and levels, a number or text such as "20MB"; never exceeded.
    bits_per_dim: of the codes alone, above 0 and up to 8, also a fraction.
    importance: (N,) numbers of 0 or more, such as frequencies: rows of more importance have more bits, from
    1/4 to max_bits, for the least error weighted by it, in groups of equal bits; the budget holds for all.
    Raises GpuzipError where a budget is too small, or comes with m, nbits or pad.
    Source: smallfry's memory budget, whose bits were allotted by word frequency.
    """
    if max_bytes is None and bits_per_dim is None and importance is None:
        return _by_product(x, m, 4 if nbits is None else nbits, pad, seed)
    if m is not None or nbits is not None or pad:
        raise GpuzipError(
            "compress: m, nbits and pad are of product quantization; a budget has codes of its own. Give one."
        )
    seed = whole("compress", "seed", seed, 0)
    return fit_budget("compress", x, max_bytes, bits_per_dim, importance, max_bits, seed)


def _by_product(x: Matrix, m: int | None, nbits: int, pad: bool, seed: int) -> Codes:
    codec = ProductQuantizer(m=m, nbits=nbits, pad=pad)
    return codec.fit(x, seed=seed, min_points_per_centroid=1).encode(x)  # it serves these rows alone


def quantize(x: Matrix, m: int | None = None, nbits: int = 4, *, pad: bool = False, seed: int = 0) -> Tensor:
    """What x looks like after compression: train, encode and decode in one call.

    (N, D) -> (N, D) on the same device and of the same dtype. Arguments as in `compress`.
    Source: embzip's function of this name.
    """
    return _by_product(x, m, nbits, pad, seed).decode()


def save(
    x: Matrix,
    path: str | os.PathLike[str],
    m: int | None = None,
    nbits: int = 4,
    *,
    pad: bool = False,
    seed: int = 0,
) -> FileInfo:
    """Compress x into one file, measure what that did to it, and stamp the measure in the file.

    Parent folders are made; an older file at `path` is replaced whole or, on any error, kept.
    print() of the result shows sizes, ratio and cosine. Arguments as in `compress`.
    """
    check_target(path)  # before a long training, not after it
    return _by_product(x, m, nbits, pad, seed).save(path, x)


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Tensor:
    """The rows of a compressed file, (N, D) in the dtype they were saved from. Every checksum is verified."""
    return _open(path, verify=True).to(device).decode()


def open(path: str | os.PathLike[str], *, verify: bool = False) -> Codes:
    """The codes of a file, mapped: only rows that are touched are read.

    The header and the codec are checked; the codes only with verify=True, which reads them all.
    `open_mixed` reads the folders of MixedCodes.
    """
    return _open(path, verify=verify)


def open_mixed(path: str | os.PathLike[str], *, verify: bool = False) -> MixedCodes:
    """The codes of a folder that `MixedCodes.save` wrote, mapped. Checks as `open` does, and all is there."""
    return read_folder(path, KIND, _mixed, verify=verify)


def _mixed(folder: Folder) -> MixedCodes:
    count: Any = folder.about.get("parts")
    if not is_whole(count) or not 1 <= count <= 255:
        raise FormatError(f"{folder.path}: its manifest describes no codes: {folder.about!r:.200}.")
    parts = [_open(folder.file(f"part-{i}.ezip"), verify=False) for i in range(count)]
    group = None
    if "group.safetensors" in folder.members:
        group = read_tensors(folder.verified("group.safetensors"))[0].get("group")
    try:
        return MixedCodes(parts, group)
    except GpuzipError as error:
        raise FormatError(f"{folder.path}: its parts are of different folders: {error}") from error


def info(path: str | os.PathLike[str]) -> FileInfo:
    """What a file holds and how good it is, from its header alone."""
    return read_info(path)


def _open(path: str | os.PathLike[str], *, verify: bool) -> Codes:
    contents = read_codes(path, verify=verify)
    try:
        codec = codec_class(contents.info.codec).restore(contents.info.config, contents.state)
    except FormatError as error:
        raise type(error)(f"{contents.info.path}: {error}") from error
    if codec.d != contents.info.d or codec.code_size != contents.codes.shape[1]:
        raise FormatError(
            f"{contents.info.path}: {contents.codes.shape[1]} bytes a row of {contents.info.d} columns; "
            f"its codec makes {codec.code_size} from {codec.d}."
        )
    return Codes(codec, contents.codes, contents.info.dtype)
