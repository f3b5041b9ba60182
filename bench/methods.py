"""Ways to store a matrix in few bits per value: gpuzip's and those of others, by one signature."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

import gpuzip
from bench import weight_peers
from bench.measure import timed
from gpuzip import Codes, LloydMaxQuantizer, MixedCodes, ScalarQuantizer
from gpuzip.codecs import Codec

BITS = (1, 2, 3, 4, 8)

_GROUPS = 24
_ENCODED_TOO = "the time includes encoding"
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
        smallest = {"k-means of values": partial(smallfry, bits=bits)}
        for side, some in (("gpuzip", ours(bits)), ("uniform", uniform(bits)), ("smallfry", smallest)):
            yield from (Method(side, name, bits, store) for name, store in some.items())
        for name, side, peer in weight_peers.PEERS.get(bits, []):
            yield Method(side, name, bits, partial(_peer, peer))


def ours(bits: int) -> dict[str, Callable[[Tensor], Stored]]:
    lloyd_max = LloydMaxQuantizer(bits)
    grouped, pairs = (
        (LloydMaxQuantizer(8, block_len=2), ", pairs of values") if bits == 4 else (lloyd_max, "")
    )
    return {
        "LloydMaxQuantizer": partial(_by_codec, lloyd_max),
        "LloydMaxQuantizer, per='dim'": partial(_by_codec, LloydMaxQuantizer(bits, per="dim")),
        "compress, bits_per_dim": partial(_by_budget, bits=bits),
        "compress, importance of squared norms": partial(_by_budget, bits=bits, by_norm=True),
        f"LloydMaxQuantizer{pairs}, rows in {_GROUPS} groups by norm": partial(_by_groups, grouped),
    }


def uniform(bits: int) -> dict[str, Callable[[Tensor], Stored]]:
    """gpuzip's own scalar codes, whose levels are equal steps."""
    return {
        f"equal steps, {range_}, per {per}": partial(_by_codec, ScalarQuantizer(bits, range=range_, per=per))
        for per, range_ in product(("tensor", "dim"), ("minmax", "mse"))
    }


def _by_codec(codec: Codec, x: Tensor) -> Stored:
    fitted, took = timed(lambda: codec.fit(x))
    return _saved(fitted.encode(x), took, None)


def _by_budget(x: Tensor, bits: int, by_norm: bool = False) -> Stored:
    importance = x.square().sum(1) if by_norm else None
    codes, took = timed(lambda: gpuzip.compress(x, bits_per_dim=bits, importance=importance))
    return _saved(codes, took, _ENCODED_TOO)


def _by_groups(codec: Codec, x: Tensor) -> Stored:
    """Each group of rows of about the same norm with levels of its own; groups have equal sums of norms."""
    norms = x.double().norm(dim=1)
    order = norms.argsort(stable=True)
    share = norms[order].cumsum(0) / norms.sum()
    group = torch.empty(len(x), dtype=torch.uint8)
    group[order] = (share * _GROUPS).clamp(max=_GROUPS - 1).to(torch.uint8)
    members = [x[group == i] for i in range(_GROUPS)]
    codes, took = timed(lambda: MixedCodes([codec.fit(some).encode(some) for some in members], group))
    return _saved(codes, took, _ENCODED_TOO)


def _saved(codes: Codes | MixedCodes, seconds: float, note: str | None) -> Stored:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.ezip")
        codes.save(path)
        read = gpuzip.open(path) if isinstance(codes, Codes) else gpuzip.open_mixed(path)
        decoded = read.decode()
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
    return Stored(decoded, codes.nbytes, seconds, size, note)


def smallfry(x: Tensor, bits: int) -> Stored:
    """Codes by the levels of smallfry's k-means on as many values as minutes allow; four bytes per level."""
    values = weight_peers.drawn(x, min(1 << 20, _SMALLFRY_WORK >> bits))
    levels, took = timed(lambda: weight_peers.smallfry_levels(values, bits))
    codec = LloydMaxQuantizer.from_codebook(levels.view(1, -1, 1), x.shape[1])
    codes = codec.encode(x)
    note = f"levels of {len(values):,} values" if len(values) < x.numel() else None
    return Stored(codes.decode(), codes.nbytes, took, None, note)


def _peer(store: weight_peers.Store, x: Tensor) -> Stored:
    return Stored(*store(x))
