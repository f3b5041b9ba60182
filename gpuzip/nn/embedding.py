"""torch.nn.Embedding with compressed rows: only the rows asked for are decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gpuzip._core.rows import Matrix
from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes
from gpuzip.nn._stored import Trainable
from gpuzip.nn._table import QuantizedTable, learning, shape_of

if TYPE_CHECKING:
    from typing_extensions import Self


class QuantizedEmbedding(QuantizedTable):
    """Rows by id, as torch.nn.Embedding gives them, from a table of `bits` bits per value.

    num_embeddings to _weight, device and dtype: nn.Embedding's. Without _weight, (N, D) floats, rows of
    N(0, 1) are drawn from torch's generator and compressed. On the meta device nothing is drawn: the tensors
    wait for `load_state_dict(..., assign=True)`.
    codec: another way to compress, fitted or not; by default LloydMaxQuantizer(bits).
    trainable: None, nothing learns; "codebook", the codebook is a parameter, and values of one code learn
    together; "scale", a factor for each of the D dimensions is one.

    padding_idx: this row is kept as it came, and gives no gradient. max_norm: rows above this norm are scaled
    down to it in the output, while nn.Embedding overwrites its weight; gradients go through the scaling.
    scale_grad_by_freq and sparse are refused: rows have no gradients of their own.

    `load_state_dict` takes codes and codebook of any codec that fit N and D, whatever this module was made
    with.
    Source: torch.nn.Embedding; May, Zhang, Dao, Re, "On the downstream performance of compressed word
    embeddings", 2019, and their smallfry's QuantEmbedding.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Matrix | None = None,
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
        self.fill(_weight, bits, codec, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Look up rows by id.

        Parameters
        ----------
        input : (*shape) int64 or int32 tensor
            Ids.

        Returns
        -------
        (*shape, D) tensor
            Rows, in the codebook's dtype.

        Raises
        ------
        IndexError
            For an id out of range, on a CPU. On a GPU, and in a compiled model, that is not checked: such a
            row is zeros.
        """
        rows = self.rows(input)
        if self.max_norm is not None:
            rows = self.clipped(rows)
        return rows.view(*input.shape, self.embedding_dim)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Matrix,
        freeze: bool | None = None,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        bits: int = 4,
        codec: Codec | None = None,
        trainable: Trainable | None = None,
    ) -> Self:
        """From (N, D) floats: a tensor, on whose device it will be, an array or a memory map.

        freeze: as nn.Embedding's, where `trainable` does not say it: True, nothing learns; False, the
        codebook does. None is True. Other arguments as of the class.
        """
        (n, d), trainable = shape_of(cls, embeddings), learning(cls, freeze, trainable)
        return cls(
            *(n, d, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse, embeddings),
            bits=bits,
            codec=codec,
            trainable=trainable,
        )

    @classmethod
    def from_codes(
        cls,
        codes: Codes,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        *,
        trainable: Trainable | None = None,
    ) -> Self:
        """Make a module from compressed rows, whose bytes it shares where it can.

        Parameters
        ----------
        codes : Codes
            The rows. Those of an open file stay mapped.
        padding_idx : int, optional
            As in the class.
        max_norm : float, optional
            As in the class.
        norm_type : float, default 2.0
            As in the class.
        trainable : {None, "codebook", "scale"}
            As in the class.

        Returns
        -------
        QuantizedEmbedding
            Its output has the dtype of the codes.

        Raises
        ------
        GpuzipError
            For a codec that is not a look-up in a table.
        """
        module = cls(*codes.shape, padding_idx, max_norm, norm_type, device="meta", trainable=trainable)
        module.hold_codes(codes)
        return module

    def to_dense(self) -> nn.Embedding:
        """The nn.Embedding of these rows."""
        dense = nn.Embedding(
            *(self.num_embeddings, self.embedding_dim, self.padding_idx, self.max_norm, self.norm_type),
            _weight=self.weight,
        )
        return dense.train(self.training)
