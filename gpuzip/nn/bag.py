"""torch.nn.EmbeddingBag with compressed rows: only the rows of the bags are decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gpuzip._core.rows import Matrix
from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes
from gpuzip.errors import GpuzipError
from gpuzip.nn._stored import Trainable
from gpuzip.nn._table import QuantizedTable, learning, shape_of

if TYPE_CHECKING:
    from typing_extensions import Self

_MODES = ("sum", "mean", "max")


class QuantizedEmbeddingBag(QuantizedTable):
    """Sums, means or maxima of bags of rows, as torch.nn.EmbeddingBag gives them, from a compressed table.

    num_embeddings to padding_idx, device and dtype: nn.EmbeddingBag's; the rest, and what differs from torch,
    as in QuantizedEmbedding. Rows of padding_idx are left out of their bag; with one, torch.compile compiles
    again for every number of ids.
    Source: torch.nn.EmbeddingBag.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Matrix | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bits: int = 4,
        codec: Codec | None = None,
        trainable: Trainable | None = None,
    ) -> None:
        super().__init__(
            *(num_embeddings, embedding_dim, padding_idx, max_norm, norm_type),
            *(scale_grad_by_freq, sparse, trainable),
        )
        if mode not in _MODES:
            raise GpuzipError(
                f"QuantizedEmbeddingBag: mode must be one of {', '.join(_MODES)}; got {mode!r}."
            )
        self.mode, self.include_last_offset = mode, include_last_offset
        self.fill(_weight, bits, codec, device, dtype)

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """(bags, D) of (bags, L) ids, or of (R,) ids and the place where each bag starts.

        input, offsets: int64 or int32. per_sample_weights: as input, floats, for mode "sum". Ids as in
        QuantizedEmbedding; torch's errors for shapes that do not go together.
        """
        self.check_ids(input)
        ids, padding = input.reshape(-1), None if self.padding_idx is None else 0
        places = torch.arange(ids.shape[0], device=input.device, dtype=input.dtype)
        if self.padding_idx is not None:  # one more row, the first, stands for padding wherever it is
            places = torch.where(ids == self.padding_idx, 0, places + 1)
            ids = nn.functional.pad(ids, (1, 0), value=self.padding_idx)
        return nn.functional.embedding_bag(
            places.view(input.shape),
            self.clipped(self.rows(ids)),
            offsets,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=padding,
        )

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Matrix,
        freeze: bool | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        bits: int = 4,
        codec: Codec | None = None,
        trainable: Trainable | None = None,
    ) -> Self:
        """From (N, D) floats; arguments in nn.EmbeddingBag's order, `freeze` as in QuantizedEmbedding."""
        (n, d), trainable = shape_of(cls, embeddings), learning(cls, freeze, trainable)
        return cls(
            *(n, d, max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings),
            *(include_last_offset, padding_idx),
            bits=bits,
            codec=codec,
            trainable=trainable,
        )

    @classmethod
    def from_codes(
        cls,
        codes: Codes,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        mode: str = "mean",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        trainable: Trainable | None = None,
    ) -> Self:
        """From compressed rows, as `QuantizedEmbedding.from_codes`."""
        module = cls(
            *(*codes.shape, max_norm, norm_type, False, mode, False, None, include_last_offset, padding_idx),
            device="meta",
            trainable=trainable,
        )
        module.hold_codes(codes)
        return module

    def to_dense(self) -> nn.EmbeddingBag:
        """The nn.EmbeddingBag of these rows."""
        dense = nn.EmbeddingBag(
            *(self.num_embeddings, self.embedding_dim, self.max_norm, self.norm_type),
            mode=self.mode,
            _weight=self.weight,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )
        return dense.train(self.training)
