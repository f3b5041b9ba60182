"""The one-call functions: quantize, save, load, open, info."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from gpuzip.codecs import ProductQuantizer, codec_class
from gpuzip.codes import Codes
from gpuzip.errors import FormatError
from gpuzip.rows import Matrix
from gpuzip.storage import FileInfo, check_target, read_codes, read_info


def compress(x: Matrix, m: int | None = None, nbits: int = 4, *, pad: bool = False, seed: int = 0) -> Codes:
    """Train a product quantizer on x and encode x with it.

    x: (N, D) float tensor, array or memory map. m: sub-quantizers, by default the divisor of D
    nearest D // 16. nbits: bits for each, 1 to 16; there must be 2**nbits rows. pad: allow m that
    does not divide D. The same seed gives the same bytes.
    """
    codec = ProductQuantizer(m=m, nbits=nbits, pad=pad)
    return codec.fit(x, seed=seed, min_points_per_centroid=1).encode(x)  # it serves these rows alone


def quantize(x: Matrix, m: int | None = None, nbits: int = 4, *, pad: bool = False, seed: int = 0) -> Tensor:
    """What x looks like after compression: train, encode and decode in one call.

    (N, D) -> (N, D) on the same device and of the same dtype. Arguments as in `compress`.
    Source: embzip's function of this name.
    """
    return compress(x, m, nbits, pad=pad, seed=seed).decode()


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
    return compress(x, m, nbits, pad=pad, seed=seed).save(path, x)


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Tensor:
    """The rows of a compressed file, (N, D) in the dtype they were saved from. Every checksum is verified."""
    return _open(path, verify=True).to(device).decode()


def open(path: str | os.PathLike[str], *, verify: bool = False) -> Codes:
    """The codes of a file, mapped: only rows that are touched are read.

    The header and the codec are checked; the codes only with verify=True, which reads them all.
    """
    return _open(path, verify=verify)


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
