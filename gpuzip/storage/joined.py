"""Codes in parts, written as one file: no part is in memory but the one that is being written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gpuzip._core.planes import Planes
from gpuzip.storage.blocks import rows_per_block, table_of
from gpuzip.storage.tensors import Pieces

#: Yields the parts in order, each time it is called; a part may be forgotten once the next one is asked for.
Parts = Callable[[], Iterator[Planes]]


@dataclass(frozen=True)
class Joined:
    """Codes in parts, each of whole blocks but the last one.

    Attributes
    ----------
    planes : list of Pieces
        Each plane of all rows.
    table : uint8 tensor
        The checksums of all blocks.
    """

    planes: list[Pieces]
    table: Tensor

    @classmethod
    def of(cls, parts: Parts, sizes: tuple[int, ...]) -> Joined:
        """Read all parts once, for their checksums. sizes: bytes per row of each plane."""
        block, n = rows_per_block(sum(sizes)), 0
        tables: list[Tensor] = []
        for part in parts():
            assert n % block == 0, "a part that is not the last one must have whole blocks"
            tables.append(table_of(part.parts, block))
            n += len(part)
        none = torch.empty((0, len(sizes), 4), dtype=torch.uint8, device="cpu")
        return cls([_plane(parts, n, i, size) for i, size in enumerate(sizes)], torch.cat([none, *tables]))


def _plane(parts: Parts, n: int, number: int, size: int) -> Pieces:
    return Pieces(torch.uint8, (n, size), lambda: (part.parts[number] for part in parts()))
