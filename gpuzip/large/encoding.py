"""Chunks of rows to codes, shard by shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

import torch
from torch import Tensor

from gpuzip._core.planes import Planes, empty
from gpuzip._core.uploads import uploaded
from gpuzip.codecs import Quantizer
from gpuzip.codecs.codes import Codes
from gpuzip.errors import GpuzipError
from gpuzip.large.clock import Clock
from gpuzip.large.source import Source, recut

_CPU = torch.device("cpu")


def encoded_shards(
    who: str,
    codec: Quantizer,
    source: Source,
    start: int,
    shard: int,
    chunk: int,
    clock: Clock,
    report: Callable[[int], object],
) -> Iterator[Codes]:
    """The codes of a source from row `start` on, the first of a shard, in shards of so many rows.

    chunk: rows that are read and encoded at a time, counted from the first row of each shard.
    """
    here = codec.to("cpu")
    blocks = recut(clock.each("reading", source.each(start, chunk)), _lengths(shard, chunk))
    data, filled, done = empty(shard, codec.plane_sizes, _CPU), 0, start
    for block in uploaded(blocks, codec.device):
        with clock.of("encoding"):
            data[filled : filled + len(block)] = _encoded(who, codec, block, done)
        filled, done = filled + len(block), done + len(block)
        report(done)
        if filled == shard:
            yield Codes(here, data, source.dtype)
            data, filled = empty(shard, codec.plane_sizes, _CPU), 0
    if filled:
        yield Codes(here, _first(data, filled), source.dtype)


def _encoded(who: str, codec: Quantizer, block: Tensor, first: int) -> Tensor:
    try:
        return codec.encode(block).data[:].cpu()
    except GpuzipError as error:
        last = first + len(block) - 1
        raise type(error)(f"{who}: among rows {first} to {last} of the source: {error}") from error


def _first(data: Tensor | Planes, count: int) -> Tensor | Planes:
    if isinstance(data, Planes):
        return Planes([part[:count] for part in data.parts])
    return data[:count]


def _lengths(shard: int, chunk: int) -> Iterator[int]:
    """Rows of chunks: those of a shard, again and again."""
    whole, rest = divmod(shard, chunk)
    while True:
        yield from repeat(chunk, whole)
        if rest:
            yield rest
