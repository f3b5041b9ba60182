"""Archives that lose nothing, or next to nothing, beside jzip, zstd and lzma."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

import gpuzip
from bench.archive_bytes import jzip, lossless_packers, plain
from bench.archive_rows import result, saved
from examples.sample import load_sample

#: jzip's own bound on the error of a value of a unit vector.
ERROR = 1.2e-7
NEAR = 1.6


def unit_rows(few: int | None = None) -> Tensor:
    """The sample, normalised in float32, so that its values have all the digits of float32."""
    return torch.nn.functional.normalize(load_sample().embeddings[:few].float())


def measure(few: int | None) -> Iterable[dict[str, Any]]:
    x = unit_rows(few)
    yield from near_lossless(x)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        yield from lossless(x.to(dtype))


def near_lossless(x: Tensor) -> Iterator[dict[str, Any]]:
    """Both sides within 1.2e-7 of each value."""
    about = {"part": "near-lossless", "data": "float32", "dial": f"max_error={ERROR:g}"}
    archive = gpuzip.TransformCoder(max_error=ERROR).fit(x).encode(x)
    error = float((archive.decode().double() - x.double()).abs().max())
    nbytes = len(saved(archive))
    ratio = x.nbytes / nbytes
    own = {"nbytes": nbytes, "max_error": error, "ratio": ratio, "at_least": NEAR}
    yield result(x, **about, **own, method="TransformCoder", ok=ratio >= NEAR and error <= ERROR)
    if packer := jzip():
        data = packer.pack(x)
        error = float((torch.from_numpy(packer.unpack(data, x)).double() - x.double()).abs().max())
        theirs = {"nbytes": len(data), "max_error": error, "ratio": x.nbytes / len(data)}
        yield result(x, **about, **theirs, method="jzip")


def lossless(x: Tensor) -> Iterator[dict[str, Any]]:
    """Every side bit for bit. The target is the best of zstd."""
    about = {"part": "lossless", "data": str(x.dtype).removeprefix("torch."), "dial": "lossless=True"}
    sizes = {}
    for name, packer in lossless_packers().items():
        data = packer.pack(x)
        if packer.unpack(data, x) != plain(x):
            raise AssertionError(f"{name} does not decode what it encoded")
        sizes[name] = len(data)
    archive = gpuzip.TransformCoder(lossless=True).fit(x).encode(x)
    if plain(archive.decode()) != plain(x):
        raise AssertionError("TransformCoder(lossless=True) does not decode what it encoded")
    nbytes, best = len(saved(archive)), min(size for name, size in sizes.items() if name.startswith("zstd"))
    ratio = {"ratio": x.nbytes / nbytes, "at_least": x.nbytes / best, "fewer": 1 - nbytes / best}
    yield result(x, **about, **ratio, nbytes=nbytes, method="TransformCoder", ok=nbytes <= best)
    for name, size in sizes.items():
        yield result(x, **about, method=name, nbytes=size, ratio=x.nbytes / size)
