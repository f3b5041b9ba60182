"""A dataset as a plain dict of rows, and one search of their codes: what every answer is compared with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gpuzip
from gpuzip.codecs.quantizer import Quantizer

D = 8


def rows_of(n: int, seed: int) -> Tensor:
    """Whole numbers, of which many rows are equal to others, so that there are ties."""
    made = torch.randint(-2, 3, (n, D), generator=torch.Generator().manual_seed(seed))
    return made.float() + 0.25


def half() -> Quantizer:
    """A codec that keeps these rows exactly."""
    return gpuzip.HalfQuantizer().fit(rows_of(16, 0))


class Plain:
    """Rows by id, in the order of appending; an updated row goes to the end."""

    def __init__(self) -> None:
        self.rows: dict[Any, Tensor] = {}

    def append(self, x: Tensor, ids: Sequence[Any]) -> None:
        assert not set(ids) & set(self.rows)
        self.rows |= dict(zip(ids, x, strict=True))

    def remove(self, ids: Sequence[Any]) -> None:
        for id in ids:
            del self.rows[id]

    def update(self, ids: Sequence[Any], x: Tensor) -> None:
        self.remove(ids)
        self.append(x, ids)

    @property
    def ids(self) -> list[Any]:
        return list(self.rows)

    def decoded(self) -> Tensor:
        return torch.stack([*self.rows.values()]) if self.rows else torch.empty(0, D)

    def search(
        self, codec: Quantizer, queries: Tensor, k: int, metric: Any, allowed: Any = None
    ) -> tuple[Tensor, list[list[Any]]]:
        """One search of the codes of all rows, or of those that are allowed, by id."""
        mask = None if allowed is None else torch.tensor([id in allowed for id in self.ids])
        values, at = codec.encode(self.decoded()).search(queries, k, metric, mask)
        return values, [[self.ids[place] for place in query] for query in at.tolist()]


def check_same(data: gpuzip.Dataset, plain: Plain, seed: int = 1) -> None:
    """Check rows, ids and searches of a dataset of `half` codes. Order matters only among equal scores."""
    assert len(data) == len(plain.rows)
    assert list(np.asarray(data.ids)) == plain.ids
    assert torch.equal(data.decode(), plain.decoded())
    queries = rows_of(3, seed)
    values, ids = data.search(queries, 5, "l2")
    if not plain.rows:
        assert values.shape == (3, 0)
        return
    want, named = plain.search(data.codec, queries, 5, "l2")
    assert torch.equal(values, want)
    assert np.asarray(ids).tolist() == named
