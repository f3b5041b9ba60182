"""Rows to measure on: the real sample, and as many more like it as are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from bench.measure import is_quick
from examples.sample import Sample, load_sample

D = 384
#: Numbers of rows that are searched, made of the real ones.
SEARCHED = (100_000,) if is_quick() else (100_000, 1_000_000)

_NOISE = 0.3


@cache
def sample() -> Sample:
    """8,000 real MiniLM embeddings of unit length and 500 queries held apart from them."""
    return load_sample()


def repeated(real: Tensor, n: int, deviation: float) -> Iterator[Tensor]:
    """n rows in blocks: all of these, over and over, each time plus Gaussian noise, of seed b in block b.

    n rows are the first of any more.
    """
    for block, start in enumerate(range(0, n, len(real))):
        noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(block))
        yield (real + noise * deviation)[: n - start]


def made_blocks(n: int) -> Iterator[Tensor]:
    """The real rows plus noise of length about 0.3, scaled to unit length.

    A made row has a cosine of about 0.96 to the row it was made from, far enough for codes of its own.
    """
    blocks = repeated(sample().embeddings, n, _NOISE / D**0.5)
    return (torch.nn.functional.normalize(block) for block in blocks)


def made(n: int) -> Tensor:
    """The blocks of `made_blocks` as one matrix."""
    return torch.cat(list(made_blocks(n)))
