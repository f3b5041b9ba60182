"""torch.nn.Embedding with compressed rows; only the requested rows are decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gpuzip._core.inputs import as_matrix
from gpuzip._core.rows import Matrix
from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes, check_codes
from gpuzip.nn._shapes import Trainable
from gpuzip.nn._table import QuantizedTable, learning, shape_of

if TYPE_CHECKING:
    from typing_extensions import Self


class QuantizedEmbedding(QuantizedTable):
    """Look up rows of a compressed table by id, as torch.nn.Embedding does.

    Parameters
    ----------
    num_embeddings : int
        Number of rows N.
    embedding_dim : int
        Values per row D.
    padding_idx : int, optional
        Row to store uncompressed and to give no gradient.
    max_norm : float, optional
        Rows with a larger norm are scaled down to it in the output. nn.Embedding overwrites its weight
        instead. Gradients pass through the scaling.
    norm_type : float, default 2.0
        Order of the norm for max_norm.
    scale_grad_by_freq : bool, default False
        Must be False, because compressed rows have no gradients.
    sparse : bool, default False
        Must be False, because compressed rows have no gradients.
    _weight : (N, D) floats, optional
        Rows to compress. None draws them from N(0, 1) with torch's generator.
    device : torch.device or str, optional
        Where to put the module. On "meta" nothing is drawn; fill it by `load_state_dict(..., assign=True)`.
    dtype : torch.dtype, optional
        Dtype of the decoded rows. Default: that of _weight, or torch's default.
    bits : int, default 4
        Bits per value of a LloydMaxQuantizer.
    codec : Codec, optional
        Codec to use instead, fitted or not.
    trainable : {None, "codebook", "scale"}
        Parameter to train. None trains nothing. "codebook" trains the codebook, so that values of one code
        change together. "scale" trains one factor per dimension, (D,).

    Raises
    ------
    GpuzipError
        For an invalid argument, or a weight that cannot be compressed.

    Notes
    -----
    `load_state_dict` accepts codes and codebook of any codec that fit N and D.

    Source: torch.nn.Embedding; May, Zhang, Dao, Re, "On the downstream performance of compressed word
    embeddings", 2019, and QuantEmbedding of their smallfry.

    Examples
    --------
    >>> import torch, gpuzip.nn
    >>> table = gpuzip.nn.QuantizedEmbedding(1000, 32, bits=4)
    >>> tuple(table(torch.tensor([3, 7])).shape), table.ratio > 7
    ((2, 32), True)
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
            Rows in the codebook's dtype.

        Raises
        ------
        IndexError
            For an id out of range on a CPU. A GPU or a compiled model does not check and returns zeros.
        """
        quick = None if self.max_norm is not None else self.quick_rows(input)
        if quick is not None:
            return quick
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
        """Compress a dense table. Positional arguments have nn.Embedding's order.

        Parameters
        ----------
        embeddings : (N, D) floats
            Tensor, array or memory map. The module goes to the device of a tensor.
        freeze : bool, optional
            nn.Embedding's way to say what learns: False means trainable="codebook", True means None.
        padding_idx : int, optional
            As in the class.
        max_norm : float, optional
            As in the class.
        norm_type : float, default 2.0
            As in the class.
        scale_grad_by_freq : bool, default False
            Must be False.
        sparse : bool, default False
            Must be False.
        bits : int, default 4
            As in the class.
        codec : Codec, optional
            As in the class.
        trainable : {None, "codebook", "scale"}
            As in the class.

        Returns
        -------
        QuantizedEmbedding
            The compressed module.

        Raises
        ------
        GpuzipError
            If freeze=True contradicts trainable, or the embeddings cannot be compressed.
        """
        embeddings = as_matrix(f"{cls.__name__}.from_pretrained", "embeddings", embeddings)
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
        """Make a module from compressed rows and share their bytes if possible.

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
            A module whose output has the dtype of the codes.

        Raises
        ------
        GpuzipError
            For a codec that does not decode by a table.
        """
        check_codes(f"{cls.__name__}.from_codes", codes)
        module = cls(*codes.shape, padding_idx, max_norm, norm_type, device="meta", trainable=trainable)
        module.hold_codes(codes)
        return module

    def to_dense(self) -> nn.Embedding:
        """Return an nn.Embedding with the decoded rows as its weight."""
        dense = nn.Embedding(
            *(self.num_embeddings, self.embedding_dim, self.padding_idx, self.max_norm, self.norm_type),
            _weight=self.weight,
        )
        return dense.train(self.training)
