"""What every codec is: fitted once, then frozen; rows to bytes and back; a way to score bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor

from gpuzip.codes import Codes
from gpuzip.errors import FormatError, GpuzipError, NotFittedError
from gpuzip.rows import BLOCK_BYTES, Matrix, Rows
from gpuzip.search import METRICS, Scorer

if TYPE_CHECKING:
    from typing_extensions import Self

Learned = TypeVar("Learned")


def check_names(
    id: str, config: dict[str, Any], settings: set[str], state: dict[str, Tensor], tensors: set[str]
) -> None:
    """Raises FormatError unless a file's settings and tensors have these names."""
    if set(config) != settings or set(state) != tensors:
        raise FormatError(
            f"{id}: settings {sorted(config)} with tensors {sorted(state)} are not those of a {id}."
        )


@dataclass(frozen=True, eq=False)
class Table:
    """What codes are looked up in. codebook: (C, K, S), for M = C * share sub-spaces of 2**nbits = K codes.

    Sub-space m has codebook[m // share]. A row is its sub-vectors side by side, up to its column d.
    """

    codebook: Tensor
    share: int


class Codec(ABC):
    """Base of the codecs. A subclass is frozen; `fit` returns a fitted copy and changes nothing.

    id: the codec's name in files; never renamed, never reused.
    """

    id: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]] = METRICS  # that a scorer knows
    gather_cost: ClassVar[int] = 1  # of a scorer, the most there is

    @property
    @abstractmethod
    def d(self) -> int:
        """Columns of the rows it was fitted on."""

    @property
    @abstractmethod
    def code_size(self) -> int:
        """Bytes a row (FAISS's name)."""

    @property
    @abstractmethod
    def is_fitted(self) -> bool: ...

    @abstractmethod
    def fit(self, x: Matrix, *, seed: int = 0) -> Self:
        """A fitted codec of the same settings."""

    @abstractmethod
    def encode_block(self, x: Tensor) -> Tensor:
        """(n, D) float32, float16 or bfloat16 -> (n, code_size) uint8."""

    @abstractmethod
    def decode_block(self, data: Tensor) -> Tensor:
        """(n, code_size) uint8 -> (n, D) float32."""

    def decode_rows(self, data: Tensor, ids: Tensor) -> Tensor:
        """The rows of ids alone: (N, code_size) uint8, (R,) int64 within [0, N) -> (R, D) float32."""
        return self.decode_block(data[ids])

    def as_table(self, data: Tensor) -> tuple[Table, Tensor]:
        """The look-up that decoding is, and the codes (N, B) to look up, packed as `ops.pack_bits` does.

        Raises GpuzipError for codecs that are none.
        """
        raise GpuzipError(
            f"{type(self).__name__}: its codes are not looked up in a table. Use a LloydMaxQuantizer, "
            "ScalarQuantizer, BinaryQuantizer or ProductQuantizer."
        )

    @abstractmethod
    def scorer(self, codes: Codes, queries: Tensor, metric: str, mask: Tensor | None = None) -> Scorer:
        """Keys of every row for (Q, D) float32 queries; see search.Scorer.

        mask: (N,) bool or None; the key of a row where it is False is -inf.
        """

    @property
    @abstractmethod
    def scorer_bytes(self) -> int:
        """Workspace that a scorer keeps for one query."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Settings as JSON; with `state` it is all there is to a codec."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Fitted tensors, as they are stored."""

    @classmethod
    @abstractmethod
    def restore(cls, config: dict[str, Any], state: dict[str, Tensor]) -> Self:
        """The codec that gave this config and state. Raises FormatError when they don't fit together."""

    @property
    def nbytes(self) -> int:
        """Bytes of the state as stored."""
        return sum(t.nbytes for t in self.state().values())

    @property
    def device(self) -> torch.device:
        return next(iter(self.state().values())).device

    def to(self, device: torch.device | str) -> Self:
        return self.restore(self.config(), {name: t.to(device) for name, t in self.state().items()})

    def same_as(self, other: Codec) -> bool:
        """Whether both make the same codes: the same settings and the same state."""
        if self is other or not (self.is_fitted and other.is_fitted):
            return self is other
        mine, theirs = self.state(), other.state()
        return (
            type(self) is type(other)
            and self.config() == other.config()
            and all(torch.equal(mine[name], theirs[name].to(mine[name].device)) for name in mine)
        )

    def check_fitted(self, who: str) -> None:
        if not self.is_fitted:
            raise NotFittedError(
                f"{who}: this {type(self).__name__} is not fitted. Call .fit(x) and use what it returns."
            )

    def learned(self, part: Learned | None, name: str) -> Learned:
        """What `fit` learned, for the attribute of this name; raises NotFittedError where that is None."""
        self.check_fitted(f"{type(self).__name__}.{name}")
        assert part is not None
        return part

    def norms(self, data: Tensor) -> Tensor:
        """(N,) float32 L2 norms of decoded rows."""
        norms = torch.empty(len(data), device=data.device)
        step = max(1, BLOCK_BYTES // (4 * self.d))
        for start in range(0, len(data), step):
            part = slice(start, start + step)
            norms[part] = torch.linalg.vector_norm(self.decode_block(data[part]), dim=1)
        return norms

    def encode(self, x: Matrix, *, progress: Callable[[int, int], None] | None = None) -> Codes:
        """Compress rows: (N, D) float tensor, array or memory map -> Codes, in blocks of bounded size.

        A tensor must be on the codec's device. An array is read block by block onto that device.
        progress: called after every block with the number of rows done and of all.
        """
        who = f"{type(self).__name__}.encode"
        self.check_fitted(who)
        rows = Rows(who, x, self.d, self.device)
        data = torch.empty((rows.n, self.code_size), dtype=torch.uint8, device=self.device)
        for start, block in rows.blocks():
            data[start : start + len(block)] = self.encode_block(block.to(self.device))
            if progress is not None:
                progress(start + len(block), rows.n)
        return Codes(self, data, rows.dtype)
