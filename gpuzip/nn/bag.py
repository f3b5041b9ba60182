"""torch.nn.EmbeddingBag with compressed rows; only the rows of the bags are decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gpuzip._core.inputs import as_matrix
from gpuzip._core.rows import Matrix
from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes, check_codes
from gpuzip.errors import GpuzipError
from gpuzip.nn._shapes import Trainable
from gpuzip.nn._table import QuantizedTable, learning, shape_of

if TYPE_CHECKING:
    from typing_extensions import Self

_MODES = ("sum", "mean", "max")


class QuantizedEmbeddingBag(QuantizedTable):
    """Reduce bags of rows of a compressed table, as torch.nn.EmbeddingBag does.

    Parameters
    ----------
    num_embeddings : int
        Number of rows N.
    embedding_dim : int
        Values per row D.
    max_norm : float, optional
        As in QuantizedEmbedding.
    norm_type : float, default 2.0
        Order of the norm for max_norm.
    scale_grad_by_freq : bool, default False
        Must be False, because compressed rows have no gradients.
    mode : {"mean", "sum", "max"}, default "mean"
        How to reduce a bag.
    sparse : bool, default False
        Must be False, because compressed rows have no gradients.
    _weight : (N, D) floats, optional
        As in QuantizedEmbedding.
    include_last_offset : bool, default False
        Whether offsets end with the number of ids.
    padding_idx : int, optional
        Id to leave out of its bag.
    device : torch.device or str, optional
        As in QuantizedEmbedding.
    dtype : torch.dtype, optional
        As in QuantizedEmbedding.
    bits : int, default 4
        Bits per value.
    codec : Codec, optional
        As in QuantizedEmbedding.
    trainable : {None, "codebook", "scale"}
        As in QuantizedEmbedding.

    Raises
    ------
    GpuzipError
        For an invalid argument, or a weight that cannot be compressed.

    Notes
    -----
    With padding_idx, torch.compile recompiles for every number of ids.

    Source: torch.nn.EmbeddingBag.

    Examples
    --------
    >>> import torch, gpuzip.nn
    >>> bag = gpuzip.nn.QuantizedEmbeddingBag(1000, 32, mode="sum", bits=4)
    >>> tuple(bag(torch.tensor([[1, 2, 3], [4, 5, 6]])).shape)
    (2, 32)
    """

    mode: str
    include_last_offset: bool

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
        """Reduce the rows of each bag.

        Parameters
        ----------
        input : (bags, L) or (R,) int64 or int32 tensor
            Ids, one bag per row, or the ids of all bags in a row.
        offsets : (bags,) int64 or int32 tensor, optional
            For (R,) input: where each bag starts.
        per_sample_weights : float tensor of the shape of input, optional
            Weights of the rows, for mode="sum".

        Returns
        -------
        (bags, D) tensor
            Reduced rows in the codebook's dtype.

        Raises
        ------
        IndexError
            For an id out of range on a CPU. A GPU or a compiled model does not check and reads zeros.
        """
        self.check_ids(input)
        ids, padding = input.reshape(-1), None if self.padding_idx is None else 0
        places = torch.arange(ids.shape[0], device=input.device, dtype=input.dtype)
        if self.padding_idx is not None:  # row 0 of the looked-up rows stands for padding
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
        """Compress a dense table. Positional arguments have nn.EmbeddingBag's order.

        Parameters
        ----------
        embeddings : (N, D) floats
            As in `QuantizedEmbedding.from_pretrained`.
        freeze : bool, optional
            As in `QuantizedEmbedding.from_pretrained`.
        max_norm : float, optional
            As in the class.
        norm_type : float, default 2.0
            As in the class.
        scale_grad_by_freq : bool, default False
            Must be False.
        mode : {"mean", "sum", "max"}, default "mean"
            As in the class.
        sparse : bool, default False
            Must be False.
        include_last_offset : bool, default False
            As in the class.
        padding_idx : int, optional
            As in the class.
        bits : int, default 4
            As in the class.
        codec : Codec, optional
            As in the class.
        trainable : {None, "codebook", "scale"}
            As in the class.

        Returns
        -------
        QuantizedEmbeddingBag
            The compressed module.

        Raises
        ------
        GpuzipError
            If freeze=True contradicts trainable, or the embeddings cannot be compressed.
        """
        embeddings = as_matrix(f"{cls.__name__}.from_pretrained", "embeddings", embeddings)
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
        """Make a module from compressed rows and share their bytes if possible.

        Parameters
        ----------
        codes : Codes
            The rows. Those of an open file stay mapped.
        max_norm : float, optional
            As in the class.
        norm_type : float, default 2.0
            As in the class.
        mode : {"mean", "sum", "max"}, default "mean"
            As in the class.
        include_last_offset : bool, default False
            As in the class.
        padding_idx : int, optional
            As in the class.
        trainable : {None, "codebook", "scale"}
            As in the class.

        Returns
        -------
        QuantizedEmbeddingBag
            A module whose output has the dtype of the codes.

        Raises
        ------
        GpuzipError
            For a codec that does not decode by a table.
        """
        check_codes(f"{cls.__name__}.from_codes", codes)
        module = cls(
            *(*codes.shape, max_norm, norm_type, False, mode, False, None, include_last_offset, padding_idx),
            device="meta",
            trainable=trainable,
        )
        module.hold_codes(codes)
        return module

    def to_dense(self) -> nn.EmbeddingBag:
        """Return an nn.EmbeddingBag with the decoded rows as its weight."""
        dense = nn.EmbeddingBag(
            *(self.num_embeddings, self.embedding_dim, self.max_norm, self.norm_type),
            mode=self.mode,
            _weight=self.weight,
            include_last_offset=self.include_last_offset,
            padding_idx=self.padding_idx,
        )
        return dense.train(self.training)
