"""Codes whose columns are kept in several matrices, so that a scan of one does not read the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gpuzip._core.memory import uninitialized


class Planes:
    """An (N, B) uint8 matrix split by columns into contiguous parts (N, B1), (N, B2), ...

    It has the tensor methods that `Codes` uses. Indexing returns a plain (n, B) tensor: a copy of these rows,
    with the parts side by side.
    """

    dtype: torch.dtype = torch.uint8
    ndim = 2
    parts: tuple[Tensor, ...]

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = tuple(parts)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of columns of each part."""
        return tuple(int(part.shape[1]) for part in self.parts)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), sum(self.sizes)

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def __len__(self) -> int:
        return int(self.parts[0].shape[0])

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        return torch.cat([part[index] for part in self.parts], 1)

    def __setitem__(self, rows: slice, block: Tensor) -> None:
        for part, columns in zip(self.parts, block.split(self.sizes, 1), strict=True):
            part[rows] = columns

    def __getstate__(self) -> dict[str, tuple[Tensor, ...]]:
        return {"parts": tuple(map(owned, self.parts))}

    def to(self, device: torch.device | str) -> Planes:
        return Planes([part.to(device) for part in self.parts])


def owned(data: Tensor) -> Tensor:
    """The same values; copied where their memory holds more than them, which pickles would write too.

    Planes do this for themselves when they are pickled.
    """
    return data if data.untyped_storage().nbytes() <= data.nbytes else data.clone()


def sizes_of(data: Tensor | Planes) -> tuple[int, ...]:
    """Number of columns of each part; one entry for a plain tensor."""
    return data.sizes if isinstance(data, Planes) else (int(data.shape[1]),)


def empty(n: int, sizes: Sequence[int], device: torch.device) -> Tensor | Planes:
    """An uninitialized matrix of n rows with these parts; a plain tensor if there is one part."""
    if device.type == "cpu":
        parts = [uninitialized(n, size, torch.uint8) for size in sizes]
    else:
        parts = [torch.empty((n, size), dtype=torch.uint8, device=device) for size in sizes]
    return parts[0] if len(parts) == 1 else Planes(parts)


def split(data: Tensor | Planes, sizes: Sequence[int]) -> Planes:
    """A matrix as Planes of these sizes; a plain tensor is copied."""
    if isinstance(data, Planes):
        return data
    return Planes([part.contiguous() for part in data.split(list(sizes), 1)])


def joined(matrices: Sequence[Tensor | Planes]) -> Tensor | Planes:
    """Rows of all of them, in order: in parts where all are."""
    planes = [matrix for matrix in matrices if isinstance(matrix, Planes)]
    if len(planes) < len(matrices):
        return torch.cat([matrix[:] for matrix in matrices])
    return Planes([torch.cat(parts) for parts in zip(*(matrix.parts for matrix in planes), strict=True)])


class Unchanged:
    """Tells whether planes still are where they were, and whether torch counted a change in place."""

    def __init__(self, planes: Sequence[Tensor]) -> None:
        self._planes, self._counted = planes, [plane for plane in planes if not plane.is_inference()]
        self._places = [plane.data_ptr() for plane in planes]
        self._versions = [plane._version for plane in self._counted]

    def __call__(self) -> bool:
        are_here = [plane.data_ptr() for plane in self._planes] == self._places
        return are_here and [plane._version for plane in self._counted] == self._versions


def versions(planes: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    """Where planes are, and how often they were changed in place, as far as torch counts it."""
    return tuple((plane.data_ptr(), 0 if plane.is_inference() else plane._version) for plane in planes)
