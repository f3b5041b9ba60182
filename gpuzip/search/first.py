"""A first search in a process, which plain torch answers while a thread compiles the loops of later ones."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
from torch import Tensor

from gpuzip._core.device import is_gpu
from gpuzip._core.rows import Matrix
from gpuzip.search.packed import Searched
from gpuzip.search.prepared import MOST_QUERIES

_MOST_WORK = 1 << 28  # bytes of codes times queries; plain torch scores some hundred million a second


def may_be_plain(searched: Searched, queries: Matrix) -> bool:
    """Return whether plain torch gives the same bits, and takes little time."""
    codec, packed = searched
    work = len(packed) * codec.code_size * _count(queries)
    return codec.searches_alike and work <= _MOST_WORK and not is_gpu(packed.device)


def need_of(searched: Searched, queries: Matrix, metric: str) -> Hashable:
    """Return a key that is equal for searches that need the same loops."""
    return type(searched.codec).__qualname__, searched.codec.code_size, metric, _count(queries) > MOST_QUERIES


def _count(queries: Matrix) -> int:
    shape: tuple[int, ...] = getattr(queries, "shape", ())
    return int(shape[0]) if len(shape) == 2 else 1


def rehearsal(
    searched: Searched,
    queries: Matrix,
    metric: str,
    k: int,
    search: Callable[[Searched, Matrix], object],
) -> Callable[[], None]:
    """Return a function that searches again, as the first time, as the second one and as later ones.

    search: by these codes or a copy of them, for queries.
    """
    again = Searched(searched.codec, searched.packed[:])
    asked = queries.detach().clone() if isinstance(queries, Tensor) else np.array(queries)

    def run() -> None:
        for _ in range(2):
            search(again, asked)
        prepared = again.packed.prepared.get(metric)
        if prepared is not None:
            prepared(asked, k)

    return run
