"""Searches by RaBitQ codes of several bits by products of bytes, on CPUs with AVX-512 VNNI.

These are no operators: `one_pass.adc_topk` gives the same answers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from gpuzip.ops import _here
from gpuzip.ops._dispatch import loops_are_used, loops_of
from gpuzip.ops.adc import RowTerms

Array = np.ndarray[Any, Any]


def grid_pays(planes: Sequence[Tensor], D: int) -> bool:
    """Return whether products of bytes are here for planes of codes, and the fastest search."""
    if len(planes) != 2 or not loops_are_used() or not _here.may_search(planes[0], len(planes[0]), 1):
        return False
    are_in_order = all(plane.stride(1) == 1 for plane in planes)
    return are_in_order and bool(loops_of("grid_topk").can_search(D, bits_of(planes)))


def bits_of(planes: Sequence[Tensor]) -> int:
    """Return the bits per dimension of planes, the first of which has one."""
    return sum(plane.shape[1] for plane in planes) // planes[0].shape[1]


def grid_tiles(planes: Sequence[Tensor], most: int) -> Tensor:
    """Return the codes of planes as `grid_best` reads them soonest: 1, 2 or 4 in a byte, as many as fit.

    If the codes of all rows would take more than `most` bytes, return those of the first rows.
    """
    tiles: Tensor = loops_of("grid_topk").tiles_of(planes, most)
    return tiles


def facts_of(planes: Sequence[Tensor], scale: Tensor, share: float, largest: tuple[float, Tensor]) -> Array:
    """Return what bounds the errors of estimates; see `loops.grid_best`.

    scale: (N,) of rows. share: of the sizes of all products that roundings take. largest: the largest size of
    scales, and of each extra column.
    """
    scales, columns = largest
    longest = loops_of("grid_topk").longest(planes, scale)
    return np.array([longest, share, scales * ((1 << bits_of(planes)) - 1), *columns.tolist()])


def grid_best(
    planes: Sequence[Tensor],
    tiles: Tensor | None,
    asked: tuple[Tensor, Tensor, Tensor],
    terms: RowTerms,
    k: int,
    facts: Array,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the k best rows (Q, k) of those with the best estimates, as `adc_topk` by tables of `sign_tables`.

    planes: (N, W) and (N, (bits - 1) * W) uint8. tiles: of `grid_tiles`, or None. asked: across (Q, D), coef
    (Q, E) and shift (Q, 1) float32. facts: of `facts_of`. Returns scores, rows, and for which queries other
    rows may be better, (Q,) bool.
    """
    scale, mask, extra, _ = terms
    found: tuple[Tensor, Tensor, Tensor] = loops_of("grid_best").grid_best(
        planes, tiles, asked, (scale, mask, extra), k, facts
    )
    return found
