"""What every way of coding an archive's rows has in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from gpuzip.storage.archive import Blocks

if TYPE_CHECKING:
    from typing_extensions import Self


class Scheme(Protocol):
    """Turns rows into levels, levels into a stream of blocks, and back."""

    @property
    def model(self) -> bytes:
        """What was learned, as files store it."""

    @property
    def d(self) -> int:
        """Columns of the rows."""

    @property
    def device(self) -> torch.device:
        """Where rows are coded."""

    def to(self, device: torch.device) -> Scheme:
        """The same on another device."""

    def config(self) -> dict[str, Any]:
        """The settings that the model does not hold, as JSON."""

    def levels_of(self, x: Tensor) -> Tensor:
        """Rows (N, D) -> their levels (N, C)."""

    def rows_of(self, levels: Tensor) -> Tensor:
        """Levels (N, C) -> rows (N, D)."""

    def pack(self, levels: Tensor, block_rows: int) -> Blocks:
        """Levels (N, C) -> their stream."""

    def unpack(self, stream: Tensor, spans: Tensor, n: int, block_rows: int) -> tuple[Tensor, Tensor]:
        """Blocks at spans (blocks, 2), of n rows -> levels (n, C), and which blocks are sound, (blocks,)."""


class Coder(Protocol):
    """What an archive asks of the coder that made it."""

    id: ClassVar[str]

    @property
    def scheme(self) -> Scheme:
        """What was learned."""

    @property
    def d(self) -> int:
        """Columns of the rows."""

    @property
    def device(self) -> torch.device:
        """Where rows are coded."""

    @property
    def nbytes(self) -> int:
        """Bytes of what was learned."""

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""


class Settings(Coder, Protocol):
    """What learning and encoding ask of a coder, as `TransformCoder` describes it."""

    @property
    def min_cosine(self) -> float | None: ...

    @property
    def bits_per_dim(self) -> float | None: ...

    @property
    def max_bytes(self) -> int | None: ...

    @property
    def max_row_error(self) -> float | None: ...

    @property
    def dictionary(self) -> Any: ...

    @property
    def states(self) -> int: ...

    @property
    def block_rows(self) -> int: ...

    @property
    def seed(self) -> int: ...
