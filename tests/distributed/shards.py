"""Rows as they lie on ranks, drawn by hypothesis: with ties, uneven and empty shards, and masks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

D = 16


class Case(NamedTuple):
    """Rows, which of them may be found, and how many are on each rank."""

    x: Tensor
    mask: Tensor | None
    sizes: list[int]

    def parts(self) -> list[Tensor]:
        return list(self.x.split(self.sizes))

    def masks(self) -> list[Any]:
        return [None] * len(self.sizes) if self.mask is None else list(self.mask.split(self.sizes))


@st.composite
def cases(draw: Any, ranks: int, least: int = 1, most: int = 90) -> Case:
    """least: rows of a rank that has any."""
    sizes = draw(st.lists(st.one_of(st.just(0), st.integers(least, most)), min_size=ranks, max_size=ranks))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 16)))
    n = sum(sizes)
    kinds = max(1, n // draw(st.sampled_from([1, 1, 3, 20])))  # rows that come many times
    rows = torch.randn(kinds, D, generator=generator)[torch.randint(0, kinds, (n,), generator=generator)]
    share = draw(st.sampled_from([None, 0.0, 0.1, 0.7]))
    mask = None if share is None else torch.rand(n, generator=generator) < share
    return Case(rows, mask, sizes)


def rows_of(n: int, seed: int) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
