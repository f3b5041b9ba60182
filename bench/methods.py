"""Ways to store a matrix in few bits per value: gpuzip's and those of others, by one signature."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import gpuzip
from bench import weight_peers
from gpuzip import Codes, LloydMaxQuantizer, MixedCodes, ScalarQuantizer
from gpuzip.codecs import Codec

BITS = (1, 2, 3, 4, 8)

_LLOYD_MAX = "LloydMaxQuantizer"
_GROUPS = 24
_SMALLFRY_WORK = 1 << 26  # values times levels that smallfry's k-means is given


@dataclass(frozen=True)
class Stored:
    """What a method made.

    nbytes: codes, codebooks and scales. file_bytes: of the saved file, where gpuzip writes one.
    """

    decoded: Tensor
    nbytes: int
    fit_seconds: float | None = None
    file_bytes: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class Method:
    """side: "gpuzip", or the library that a peer is of. bits: those of a code, its scales left out."""

    side: str
    name: str
    bits: int
    store: Callable[[Tensor], Stored]


def methods(d: int) -> Iterator[Method]:
    """For a matrix of d columns, by bits."""
    for bits in BITS:
        yield from ours(bits, d)
        yield from uniform(bits)
        yield Method("smallfry", "k-means of values", bits, partial(smallfry, bits=bits))
        for name, side, store in weight_peers.PEERS.get(bits, []):
            yield Method(side, name, bits, partial(_peer, store))


def ours(bits: int, d: int) -> Iterator[Method]:
    yield Method("gpuzip", _LLOYD_MAX, bits, partial(_by_codec, LloydMaxQuantizer(bits)))
    by_dim = LloydMaxQuantizer(bits, per="dim")
    yield Method("gpuzip", f"{_LLOYD_MAX}, per='dim'", bits, partial(_by_codec, by_dim))
    yield Method("gpuzip", "compress, bits_per_dim", bits, partial(_by_budget, bits=bits))
    weighted = partial(_by_budget, bits=bits, by_norm=True)
    yield Method("gpuzip", "compress, importance of squared norms", bits, weighted)
    grouped = LloydMaxQuantizer(8, block_len=2) if bits == 4 else LloydMaxQuantizer(bits)
    name = f"{_LLOYD_MAX}{', pairs of values' * (bits == 4)}, rows in {_GROUPS} groups by norm"
    yield Method("gpuzip", name, bits, partial(_by_groups, grouped))


def uniform(bits: int) -> Iterator[Method]:
    """gpuzip's own scalar codes, whose levels are equal steps."""
    for per in ("tensor", "dim"):
        for range_ in ("minmax", "mse"):
            codec = ScalarQuantizer(bits, range=range_, per=per)
            yield Method("uniform", f"equal steps, {range_}, per {per}", bits, partial(_by_codec, codec))


def _by_codec(codec: Codec, x: Tensor) -> Stored:
    start = time.perf_counter()
    fitted = codec.fit(x)
    took = time.perf_counter() - start
    return _saved(fitted.encode(x), took, None)


def _by_budget(x: Tensor, bits: int, by_norm: bool = False) -> Stored:
    start = time.perf_counter()
    importance = x.square().sum(1) if by_norm else None
    codes = gpuzip.compress(x, bits_per_dim=bits, importance=importance)
    return _saved(codes, time.perf_counter() - start, "the time includes encoding")


def _by_groups(codec: Codec, x: Tensor) -> Stored:
    """Each group of rows of about the same norm with levels of its own; groups have equal sums of norms."""
    start = time.perf_counter()
    norms = x.double().norm(dim=1)
    order = norms.argsort(stable=True)
    share = norms[order].cumsum(0) / norms.sum()
    group = torch.empty(len(x), dtype=torch.uint8)
    group[order] = (share * _GROUPS).clamp(max=_GROUPS - 1).to(torch.uint8)
    members = [x[group == i] for i in range(_GROUPS)]
    codes = MixedCodes([codec.fit(some).encode(some) for some in members], group)
    return _saved(codes, time.perf_counter() - start, "the time includes encoding")


def _saved(codes: Codes | MixedCodes, seconds: float, note: str | None) -> Stored:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.ezip")
        codes.save(path)
        read = gpuzip.open(path) if isinstance(codes, Codes) else gpuzip.open_mixed(path)
        decoded = read.decode()
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
    return Stored(decoded, codes.nbytes, seconds, size, note)


def smallfry_values(x: Tensor, bits: int) -> Tensor:
    """(n, 1): those of x that smallfry's k-means can be given within minutes, drawn with seed 0."""
    most = min(1 << 20, _SMALLFRY_WORK >> bits)
    at = torch.randint(x.numel(), (most,), generator=torch.Generator().manual_seed(0))
    return (x.reshape(-1)[at] if most < x.numel() else x.reshape(-1)).view(-1, 1)


def smallfry(x: Tensor, bits: int) -> Stored:
    """Codes by the levels of smallfry's k-means, and four bytes a level."""
    values = smallfry_values(x, bits)
    start = time.perf_counter()
    levels = weight_peers.smallfry_levels(values, bits)
    took = time.perf_counter() - start
    codec = LloydMaxQuantizer.from_codebook(levels.view(1, -1, 1), x.shape[1])
    codes = codec.encode(x)
    note = f"levels of {len(values):,} values" if len(values) < x.numel() else None
    return Stored(codes.decode(), codes.nbytes, took, None, note)


def _peer(store: weight_peers.Store, x: Tensor) -> Stored:
    return Stored(*store(x))
