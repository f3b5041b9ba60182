"""Bits per value at a cosine: archives, the Gaussian bound, and other codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

import gpuzip
from bench.archive_bytes import jzip, shuffled
from bench.archive_rows import result, saved
from bench.matrices import word_vectors
from bench.peers import embzip_load, embzip_save
from examples.rag_593k import real_rows
from gpuzip.choose.bound import distortion
from gpuzip.rotations.spectrum import variances

COSINES = (0.90, 0.95, 0.98, 0.99, 0.999)
#: Bits per value above the bound.
SLACK = 0.25
#: Rows for codes that are trained longest, and for zstd -19.
FEWER = 4000


def sift_like(n: int = 40_000) -> Tensor:
    """(n, 128) float32: whole numbers from 0 to 255, of which many are 0, in columns that correlate.

    As histograms of gradients are: 8 directions in each of 4 by 4 cells, of length 512.
    """
    make = torch.Generator().manual_seed(0)
    mix = torch.randn(128, 128, generator=make) * 0.4 + torch.eye(128)
    spread = torch.linspace(1.5, 0.2, 128).exp()
    rows = (torch.randn(n, 128, generator=make) * spread) @ mix.T
    rows = rows.abs().pow(1.3) * (torch.rand(n, 128, generator=make) > 0.2)
    return (512 * torch.nn.functional.normalize(rows)).round().clamp(max=255)


def bound_bits(spread: Tensor, error: float) -> float:
    """The bits of a Gaussian vector whose distortion is `error`: `distortion` the other way round."""
    low, high = 0.0, 64.0 * len(spread)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if distortion(spread, middle) > error else (low, middle)
    return high


def measure(few: int | None, only: str | None = None) -> Iterable[dict[str, Any]]:
    for name, rows in DATA.items():
        if only in (None, name):
            yield from rows(name, few)


def _sentences(name: str, few: int | None) -> Iterator[dict[str, Any]]:
    real = real_rows().embeddings[:few].float()
    yield from archives(name, real, (8,), COSINES)
    yield from by_bytes(name, real[:FEWER])
    for m in (64, 128, 384):
        yield _embzip(name, real[:1000], m)
    if packer := jzip():
        data = packer.pack(real[:FEWER])
        back = torch.from_numpy(packer.unpack(data, real[:FEWER]))
        yield _row(name, real[:FEWER], "jzip", back, len(data))
    yield from archives(name, real, (64,), COSINES[1::2])


def _words(name: str, few: int | None) -> Iterator[dict[str, Any]]:
    yield from _beside_others(name, word_vectors()[:few])


def _integers(name: str, few: int | None) -> Iterator[dict[str, Any]]:
    yield from _beside_others(name, sift_like(few or 40_000))


def _beside_others(name: str, x: Tensor) -> Iterator[dict[str, Any]]:
    yield from archives(name, x, (8,), COSINES[::2])
    yield from others(name, x[:FEWER])
    yield _embzip(name, x[:1000], _split(x.shape[1], 4))


DATA: dict[str, Callable[[str, int | None], Iterator[dict[str, Any]]]] = {
    "sentence embeddings": _sentences,
    "word vectors": _words,
    "SIFT-like integers": _integers,
}


def archives(
    name: str, x: Tensor, states: tuple[int, ...], cosines: Iterable[float]
) -> Iterator[dict[str, Any]]:
    """Whole files. The bound is for the same squared error, or where rows have length 1 the same cosine."""
    spread = variances(x)
    norms = x.norm(dim=1)
    is_unit = bool(((norms - 1).abs() < 1e-3).all())
    for count in states:
        for cosine in cosines:
            archive = gpuzip.TransformCoder(min_cosine=cosine, states=count).fit(x).encode(x)
            back = archive.decode(torch.float32)
            found = float(torch.nn.functional.cosine_similarity(x, back).mean())
            error = 1 - found**2 if is_unit else float((x - back).double().square().sum(1).mean())
            bound = bound_bits(spread, error) / x.shape[1]
            nbytes = len(saved(archive))
            gap = 8 * nbytes / x.numel() - bound
            about: dict[str, Any] = {
                "part": "curve",
                "data": name,
                "method": f"TransformCoder, {count} states",
            }
            about |= {"dial": f"min_cosine={cosine}", "nbytes": nbytes, "cosine": found}
            good = gap <= SLACK and found >= cosine - 2e-4
            yield result(x, **about, bound_bits=bound, gap=gap, at_least=SLACK, ok=good)


def others(name: str, x: Tensor) -> Iterator[dict[str, Any]]:
    """Codes of a fixed length with their tables, and zstd -19 of bytes.

    Those of sentence embeddings are in results/recall.csv, at all 40,000 rows.
    """
    d = x.shape[1]
    eighth, quarter = _split(d, 8), _split(d, 4)
    codecs = {
        f"PQ{eighth}x8": gpuzip.ProductQuantizer(eighth, 8),
        f"PQ{quarter}x8": gpuzip.ProductQuantizer(quarter, 8),
        f"OPQ{eighth}x8": gpuzip.ProductQuantizer(eighth, 8, rotation="opq"),
        "RQ16x8": gpuzip.ResidualQuantizer(16),
        **{f"Lloyd-Max, {bits} bits": gpuzip.LloydMaxQuantizer(bits) for bits in (1, 2, 4)},
    }
    for method, codec in codecs.items():
        codes = codec.fit(x).encode(x)
        yield _row(name, x, method, codes.decode(torch.float32), codes.nbytes)
    yield from by_bytes(name, x)


def _split(d: int, columns: int) -> int:
    """The number of sub-spaces of at least so many columns, equal ones."""
    return next(m for m in range(d // columns, 0, -1) if d % m == 0)


def by_bytes(name: str, x: Tensor) -> Iterator[dict[str, Any]]:
    """zstd -19 of 8-bit codes, and of float16."""
    pack = import_module("zstandard").ZstdCompressor(level=19).compress
    scalar = gpuzip.ScalarQuantizer(8).fit(x).encode(x)
    flat = shuffled(scalar.packed.data)
    yield _row(name, x, "scalar, 8 bits, zstd -19", scalar.decode(torch.float32), len(pack(flat)))
    half = x.half()
    yield _row(name, x, "float16, zstd -19", half.float(), len(pack(shuffled(half))))


def _embzip(name: str, x: Tensor, m: int) -> dict[str, Any]:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = f"{folder}/rows"
        embzip_save(x, path, m, polysemous=False)
        with open(path, "rb") as file:
            nbytes = len(file.read())
        return _row(name, x, f"embzip, m={m}", embzip_load(path), nbytes)


def _row(name: str, x: Tensor, method: str, back: Tensor, nbytes: int) -> dict[str, Any]:
    cosine = float(torch.nn.functional.cosine_similarity(x, back).mean())
    return result(x, part="curve", data=name, method=method, nbytes=nbytes, cosine=cosine)
