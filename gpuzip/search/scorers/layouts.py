"""How codes are decoded to float rows, tile by tile, for searches by products on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

from gpuzip.ops.row_writers import mixed_rows, table_rows

Write = Callable[[int, int, Tensor], None]


class Layout(Protocol):
    """What a product needs to know of codes beside the centroids of their scorer."""

    @property
    def name(self) -> str:
        """The name under which `writer`'s result is remembered."""

    @property
    def columns(self) -> Tensor | None:
        """(D,) int64: the columns of a scorer's queries that a row is multiplied by; None for all."""

    def writer(self, codes: Tensor) -> Write:
        """Return write(start, stop, out), which writes rows (n, D) float32, for loops that run."""


class TableLayout(NamedTuple):
    """Codes of a codebook (C, K, S), each for `share` neighbouring sub-spaces, as `ops.decode` has them."""

    codebook: Tensor
    share: int = 1

    @property
    def name(self) -> str:
        return f"rows by {len(self.codebook)} tables of {self.codebook.shape[1]}"

    @property
    def columns(self) -> None:
        return None

    def writer(self, codes: Tensor) -> Write:
        return table_rows(codes, self.codebook, self.share)


class MixedLayout(NamedTuple):
    """Codes of several widths, whose values are level * scale + offset.

    counts: by width in bits, how many dimensions have it; the others have no code. levels: 2**width of each
    width, one after the other. scale, offset: (D,), of those dimensions in this order. columns: see `Layout`.
    """

    counts: dict[int, int]
    levels: Tensor
    scale: Tensor
    offset: Tensor
    columns: Tensor | None = None

    @property
    def name(self) -> str:
        return "rows of several widths"

    def writer(self, codes: Tensor) -> Write:
        return mixed_rows(codes, self.counts, self.levels, self.scale, self.offset)
