"""Rows in blocks of a stream: those of some blocks, or of some ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gpuzip._core.memory import uninitialized
from gpuzip.archive.scheme import Coder, Scheme
from gpuzip.storage.archive import Blocks, Kept, UnverifiedBlocks, damaged

_AT_ONCE = 1 << 22  # values that are decoded at a time


class BlockRows:
    """What `Archive` holds, and reads of it. Arguments are its own."""

    codec: Coder
    dtype: torch.dtype
    blocks: Blocks
    kept: Kept | None

    def __init__(
        self, coder: Coder, blocks: Blocks, n: int, dtype: torch.dtype, kept: Kept | None = None
    ) -> None:
        self.codec, self.dtype, self.blocks, self.kept = coder, dtype, blocks, kept
        self.why: str | None = None
        self._n = n
        self.unverified: UnverifiedBlocks | None = None

    @property
    def _scheme(self) -> Scheme:
        return self.codec.scheme

    def __len__(self) -> int:
        return self._n

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D) of the source rows."""
        return self._n, self.codec.d

    @property
    def device(self) -> torch.device:
        """Where rows are decoded."""
        return self.codec.device

    def _verify(self, blocks: range | list[int]) -> None:
        if self.unverified is not None:
            self.unverified.verify(list(blocks))

    def _decoded(self) -> Iterator[tuple[int, Tensor]]:
        """First row and rows of some blocks at a time, in order."""
        step = max(1, _AT_ONCE // (self.blocks.rows * self.codec.d))
        for first in range(0, len(self.blocks), step):
            blocks = list(range(first, min(first + step, len(self.blocks))))
            yield first * self.blocks.rows, self._rows_of_blocks(blocks)

    def _empty(self, dtype: torch.dtype) -> Tensor:
        if self.device.type == "cpu":
            return uninitialized(*self.shape, dtype)
        return torch.empty(self.shape, dtype=dtype, device=self.device)

    def _float_rows(self, ids: Tensor) -> Tensor:
        return self._read(ids, self._rows_of_blocks).float()

    def _read(self, ids: Tensor, read: Callable[[list[int]], Tensor]) -> Tensor:
        """Rows or levels of these ids, from the blocks that hold them; read: those of some blocks."""
        of = ids // self.blocks.rows
        known, place = of.unique(return_inverse=True)
        step = max(1, _AT_ONCE // (self.blocks.rows * self.codec.d))
        parts: list[tuple[Tensor, Tensor]] = []
        for first in range(0, len(known), step):
            blocks = known[first : first + step].tolist()
            here = ((place >= first) & (place < first + step)).nonzero()[:, 0]
            at = (place[here] - first) * self.blocks.rows + ids[here] % self.blocks.rows
            parts.append((here, read(blocks)[at]))
        if not parts:
            return read([])
        order = torch.cat([here for here, _ in parts]).argsort()
        return torch.cat([rows for _, rows in parts])[order]

    def _count(self, blocks: list[int]) -> int:
        """Rows of these blocks, of which only the last one of all may be short."""
        if not blocks:
            return 0
        return (
            min((blocks[-1] + 1) * self.blocks.rows, len(self))
            - blocks[-1] * self.blocks.rows
            + (len(blocks) - 1) * self.blocks.rows
        )

    def _levels(self, blocks: list[int]) -> Tensor:
        self._verify(blocks)
        spans = self.blocks.spans[blocks].to(self.blocks.stream.device)
        levels, sound = self._scheme.unpack(self.blocks.stream, spans, self._count(blocks), self.blocks.rows)
        if not bool(sound.all()):
            path = None if self.unverified is None else self.unverified.path
            raise damaged(path, blocks[int((~sound).nonzero()[0, 0])], self.blocks.rows)
        return levels

    def _rows_of_blocks(self, blocks: list[int]) -> Tensor:
        rows = self._scheme.rows_of(self._levels(blocks))
        if self.kept is not None:
            of = torch.full((len(self.blocks) + 1,), -1, dtype=torch.int64, device="cpu")
            of[blocks] = torch.arange(len(blocks), dtype=torch.int64, device="cpu")
            place = of[self.kept.ids // self.blocks.rows]
            here = place >= 0
            at = place[here] * self.blocks.rows + self.kept.ids[here] % self.blocks.rows
            kept = self.kept.rows[here].to(rows.device)
            rows = rows.to(torch.promote_types(rows.dtype, kept.dtype))  # float64 rows are kept as such
            rows[at.to(rows.device)] = kept.to(rows.dtype)
        return rows
