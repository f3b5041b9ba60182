"""Packages that compress the bytes of rows: zstd, lzma and jzip."""

from __future__ import annotations

import lzma
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class Packer(NamedTuple):
    """Rows to bytes and back. Only jzip loses anything."""

    pack: Callable[[Tensor], bytes]
    unpack: Callable[[bytes, Tensor], Any]


def zstd(level: int) -> Packer:
    package = import_module("zstandard")
    return Packer(
        lambda x: package.ZstdCompressor(level=level).compress(plain(x)),
        lambda data, x: package.ZstdDecompressor().decompress(data),
    )


def shuffled_zstd(level: int) -> Packer:
    package = import_module("zstandard")
    return Packer(
        lambda x: package.ZstdCompressor(level=level).compress(shuffled(x)),
        lambda data, x: unshuffled(package.ZstdDecompressor().decompress(data), x),
    )


def lossless_packers() -> dict[str, Packer]:
    return {
        "zstd -3": zstd(3),
        "zstd -19": zstd(19),
        "zstd -19, bytes shuffled and transposed": shuffled_zstd(19),
        "lzma": Packer(lambda x: lzma.compress(plain(x)), lambda data, x: lzma.decompress(data)),
    }


def jzip(threads: int = 1) -> Packer | None:
    """None where the package is not installed: its wheels are for few versions of Python."""
    if find_spec("jzip") is None:
        return None
    package = import_module("jzip")
    return Packer(
        lambda x: package.compress(x.numpy(), threads=threads),
        lambda data, x: package.decompress(data, threads=threads),
    )


def plain(x: Tensor) -> bytes:
    return _bytes(x).tobytes()


def shuffled(x: Tensor) -> bytes:
    """The first byte of all values, column by column, then the second."""
    return np.ascontiguousarray(_bytes(x).transpose(2, 1, 0)).tobytes()


def unshuffled(data: bytes, x: Tensor) -> bytes:
    n, d = x.shape
    planes = np.frombuffer(data, np.uint8).reshape(x.element_size(), d, n)
    return np.ascontiguousarray(planes.transpose(2, 1, 0)).tobytes()


def _bytes(x: Tensor) -> np.ndarray:
    """(N, D, bytes of a value) uint8."""
    n, d = x.shape
    return x.contiguous().view(torch.uint8).numpy().reshape(n, d, x.element_size())
