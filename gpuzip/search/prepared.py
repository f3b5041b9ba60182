"""A search of few queries by codes that were searched before, for which all but the queries is at hand.

`search.run` gives the same answer. It checks, and makes anew, what this keeps, which takes longer than the
scan of 10,000 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.few import is_plain
from gpuzip._core.planes import versions
from gpuzip.ops._dispatch import loops_are_used, unless_compiling
from gpuzip.ops.few import Array, Few

MOST_QUERIES = 16

Search = Callable[[Any, Any], tuple[Tensor, Tensor] | None]


def nothing(queries: object, k: object) -> None:
    """Leave every query to `search.run`."""


class Prepared:
    """Search codes by one metric.

    few: the search. planes: what it reads. N rows. width, dtype: of a query. are_distances: whether values
    are distances. change: makes of queries (Q, width) those that `few` takes, or None; arrays.
    """

    def __init__(
        self,
        few: Few,
        planes: Sequence[Tensor],
        N: int,
        width: int,
        dtype: torch.dtype,
        are_distances: bool,
        change: Callable[[Array], Array] | None = None,
    ) -> None:
        self._at_address: Callable[..., Any] | None = getattr(few, "at_address", None)
        self._few, self._N, self._width, self._dtype = few, N, width, dtype
        self._planes, self._versions = planes, versions(planes)
        self._are_distances, self._change = are_distances, change
        self._known = (0, 0, 0), False
        self._needs = type(few).__qualname__, width, are_distances  # what tells which loops

    def takes(self, width: int) -> bool:
        """Whether queries are floats of so many columns, or bytes."""
        return self._dtype is torch.uint8 or self._width == width

    def after(self, change: Callable[[Array], Array]) -> Prepared:
        """The same search of queries that are changed before."""
        shape, then = (self._N, self._width, self._dtype), self._change
        both = change if then is None else lambda queries: then(change(queries))
        return Prepared(self._few, self._planes, *shape, self._are_distances, both)

    def __call__(self, queries: object, k: object) -> tuple[Tensor, Tensor] | None:
        """Values and ids of every query; None where `search.run` must search, or say what is wrong."""
        if (
            type(queries) is not Tensor
            or type(k) is not int
            or queries.dtype is not self._dtype
            or not is_plain(queries)
            or queries.layout is not torch.strided
        ):
            return None
        shape = queries.shape
        one = len(shape) == 1
        Q = shape[0] if len(shape) == 2 else 1
        if (
            not 1 <= len(shape) <= 2
            or shape[-1] != self._width
            or (one and self._dtype is torch.uint8)
            or not 0 < Q <= MOST_QUERIES
            or not 0 < k <= self._N
            or not loops_are_used()
            or not self._can_search(Q, k)
            or self._versions != versions(self._planes)  # codes that changed
        ):
            return None
        found = unless_compiling(self._needs, self._found, queries, Q, k)
        if found is None:
            return None
        values, ids = found
        wanted = (k,) if one else (Q, k)
        if values.shape != wanted:
            values, ids = values.reshape(wanted), ids.reshape(wanted)
        return torch.from_numpy(values), torch.from_numpy(ids)

    def _can_search(self, Q: int, k: int) -> bool:
        """What `few` says, which is asked again only where it may say something else."""
        asked, (known, can) = (Q, k, torch.get_num_threads()), self._known
        if asked != known:
            can = self._few.can_search(Q, k)
            self._known = asked, can
        return can

    def _found(self, queries: Tensor, Q: int, k: int) -> tuple[Array, Array] | None:
        """Search queries (Q, width), or the only one, (width,)."""
        if self._change is not None:
            asked = self._change(queries.numpy().reshape(Q, -1))
            return self._few(asked.reshape(-1), Q, k, self._are_distances)
        if self._at_address is not None:
            whole = queries.contiguous()  # kept while its address is used
            found: tuple[Array, Array] | None = self._at_address(whole.data_ptr(), Q, k, self._are_distances)
            return found
        return self._few(queries.numpy().reshape(-1), Q, k, self._are_distances)
