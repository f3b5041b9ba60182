"""Rows to measure on: the real sample, and as many more like it as are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from bench.measure import is_quick
from examples.sample import Sample, load_sample

D = 384
#: Rows that are searched at most, made of the real ones.
MOST_ROWS = 100_000 if is_quick() else 1_000_000

_NOISE = 0.3


@cache
def sample() -> Sample:
    """8,000 real MiniLM embeddings of unit length and 500 queries held apart from them."""
    return load_sample()


def made_blocks(n: int) -> Iterator[Tensor]:
    """n rows in blocks: all real rows, over and over, each time with other noise.

    Block b is the real rows plus Gaussian noise of length about 0.3, from seed b, scaled to unit length.
    A made row has a cosine of about 0.96 to the row it was made from, far enough for codes of its own.
    n rows are the first of any more.
    """
    real = sample().embeddings
    for block, start in enumerate(range(0, n, len(real))):
        noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(block))
        rows = real + noise * (_NOISE / D**0.5)
        yield torch.nn.functional.normalize(rows)[: n - start]


def made(n: int) -> Tensor:
    """The blocks of `made_blocks` as one matrix."""
    return torch.cat(list(made_blocks(n)))
