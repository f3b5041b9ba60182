"""A search of few queries by codes that were searched before, for which all but the queries is at hand.

`search.run` gives the same answer. It checks, and makes anew, what this keeps, which takes longer than the
scan of 10,000 rows. A call here takes about as long as the scan of 1,000 rows, so it asks torch, numpy and
other functions for as little as it can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.device import is_on_cpu
from gpuzip._core.planes import Unchanged
from gpuzip._core.rows import are_sound
from gpuzip.ops._dispatch import loops_are_used, unless_compiling
from gpuzip.ops.few import Array, Choice, Few, Found, searched

MOST_QUERIES = 16

Search = Callable[[Any, Any], Found]

_Asked = tuple[int, int, int]  # queries, rows of each, and threads


def nothing(queries: object, k: object) -> None:
    """Leave every query to `search.run`."""


class Prepared:
    """Search codes by one metric.

    choice: the search. planes: what it reads. N rows. width, dtype: of a query. are_distances: whether values
    are distances. change: makes of queries (Q, width) those that are searched for, or None; arrays. checks:
    whether queries are checked here, as the search itself cannot tell which are sound.
    """

    def __init__(
        self,
        choice: Choice,
        planes: Sequence[Tensor],
        N: int,
        width: int,
        dtype: torch.dtype,
        are_distances: bool,
        change: Callable[[Array], Array] | None = None,
        checks: bool = False,
    ) -> None:
        self._choice, self._N, self._width, self._dtype = choice, N, width, dtype
        self._planes, self._are_unchanged = planes, Unchanged(planes)
        self._are_distances, self._change, self._checks = are_distances, change, checks
        self._chosen: tuple[_Asked, Few | None] = (0, 0, 0), None
        self._ready: _Asked = 0, 0, 0  # for which all loops are compiled

    def takes(self, width: int) -> bool:
        """Whether queries are floats of so many columns, or bytes."""
        return self._dtype is torch.uint8 or self._width == width

    def after(self, change: Callable[[Array], Array]) -> Prepared:
        """The same search of queries that are changed before."""
        shape, then = (self._N, self._width, self._dtype), self._change
        both = change if then is None else lambda queries: then(change(queries))
        return Prepared(self._choice, self._planes, *shape, self._are_distances, both, self._checks)

    def __call__(self, queries: object, k: object) -> Found:
        """Values and ids of every query; None where `search.run` must search, or say what is wrong."""
        if (
            type(queries) is not Tensor
            or type(k) is not int
            or queries.dtype is not self._dtype
            or not is_on_cpu(queries)
            or queries.requires_grad
            or queries.layout is not torch.strided
            or queries.is_neg()  # whose memory holds other values
        ):
            return None
        shape: tuple[int, ...] = queries.shape
        if len(shape) == 2:
            Q, answer = shape[0], None
        elif len(shape) == 1 and self._dtype is not torch.uint8:
            Q, answer = 1, (k,)
        else:
            return None
        if (
            shape[-1] != self._width
            or not 0 < Q <= MOST_QUERIES
            or not 0 < k <= self._N
            or not loops_are_used()
            or not self._are_unchanged()
        ):
            return None
        asked = Q, k, torch.get_num_threads()
        of, few = self._chosen
        if of != asked:
            few = self._choice(Q, k)
            self._chosen = asked, few
        if few is None:
            return None
        given = few, queries, Q, k, answer
        if self._ready == asked:
            return self._found(*given)
        needs = type(few).__qualname__, self._width, self._are_distances  # which tells which loops
        found = unless_compiling(needs, self._found, *given)
        if found is not None:
            self._ready = asked
        return found

    def _found(
        self, few: Few, queries: Tensor, Q: int, k: int, answer: tuple[int, ...] | None
    ) -> tuple[Tensor, Tensor] | None:
        """Search queries (Q, width), or the only one, (width,)."""
        if self._checks and not are_sound(queries):
            return None
        if self._change is None:
            asked = queries.contiguous()
        else:
            asked = torch.from_numpy(np.ascontiguousarray(self._change(queries.numpy().reshape(Q, -1))))
        return searched(few, asked, Q, k, self._are_distances, answer)


class OfCodesOrFloats:
    """Search for queries that are codes, as bytes, and for those that are floats."""

    def __init__(self, codes: Prepared, floats: Prepared) -> None:
        self._codes, self._floats = codes, floats

    def takes(self, width: int) -> bool:
        """Whether queries are floats of so many columns."""
        return self._floats.takes(width)

    def after(self, change: Callable[[Array], Array]) -> OfCodesOrFloats:
        """The same search of floats that are changed before."""
        return OfCodesOrFloats(self._codes, self._floats.after(change))

    def __call__(self, queries: object, k: object) -> Found:
        """Do what `Prepared` does."""
        are_floats = getattr(queries, "dtype", None) is torch.float32
        return (self._floats if are_floats else self._codes)(queries, k)
