"""Estimates of RaBitQ codes of several bits by products of bytes, on CPUs with AVX-512 VNNI.

These are no operators: they find candidates, whose scores `candidates.sign_sums` finds.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gpuzip.ops import _here
from gpuzip.ops._dispatch import loops_are_used, loops_of
from gpuzip.ops.adc import RowTerms


def grid_pays(planes: Sequence[Tensor], D: int) -> bool:
    """Return whether products of bytes are here for planes of codes, and the fastest search."""
    if len(planes) != 2 or not loops_are_used() or not _here.may_search(planes[0], len(planes[0]), 1):
        return False
    are_in_order = all(plane.stride(1) == 1 for plane in planes)
    return are_in_order and bool(loops_of("grid_topk").can_search(D, bits_of(planes)))


def bits_of(planes: Sequence[Tensor]) -> int:
    """Return the bits per dimension of planes, the first of which has one."""
    return sum(plane.shape[1] for plane in planes) // planes[0].shape[1]


def tile_bytes(planes: Sequence[Tensor]) -> int | None:
    """Return the bytes that `grid_tiles` takes; None where it makes none of so many bits."""
    most = loops_of("grid_topk").MOST_PACKED
    return most * planes[0].nbytes if bits_of(planes) <= most else None


def grid_tiles(planes: Sequence[Tensor]) -> Tensor:
    """Return the codes of planes as `grid_topk` reads them soonest, two in a byte."""
    tiles: Tensor = loops_of("grid_topk").packed_tiles(planes)
    return tiles


def longest(planes: Sequence[Tensor], scale: Tensor) -> float:
    """Return the greatest length of a row on the grid times the size of its scale (N,)."""
    return float(loops_of("grid_topk").longest(planes, scale))


def grid_topk(
    planes: Sequence[Tensor],
    tiles: Tensor | None,
    across: Tensor,
    terms: RowTerms,
    k: int,
    longest: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the k best rows by estimates (Q, k), and by how much scores may be above these, (Q,) float64.

    planes: (N, W) and (N, (bits - 1) * W) uint8. tiles: of `grid_tiles`, or None. across: (Q, D) float32.
    longest: of `longest`. Roundings of float32 come on top. Missing rows are -inf and row 0.
    """
    scale, mask, extra, coef = terms
    found: tuple[Tensor, Tensor, Tensor] = loops_of("grid_topk").grid_topk(
        planes, tiles, (across, coef), (scale, mask, extra), k, longest
    )
    return found
