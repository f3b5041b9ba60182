"""Base of compressed embeddings: makes a table from a weight and looks up rows by id."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C import _get_tracing_state

from gpuzip._core.checks import whole
from gpuzip._core.inputs import as_matrix
from gpuzip._core.rows import Matrix, Rows
from gpuzip.codecs import Codec
from gpuzip.codecs.codes import Codes
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.nn._compress import compressed, row_of
from gpuzip.nn._lookup import lookup
from gpuzip.nn._shapes import Trainable, sharing
from gpuzip.nn._stored import StoredTable
from gpuzip.ops import code_bytes, rows_by_id


class QuantizedTable(StoredTable):
    """Base of QuantizedEmbedding and QuantizedEmbeddingBag."""

    padding_idx: int | None
    max_norm: float | None
    norm_type: float

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
        trainable: Trainable | None,
    ) -> None:
        who = type(self).__name__
        n, d = whole(who, "num_embeddings", num_embeddings), whole(who, "embedding_dim", embedding_dim)
        super().__init__(n, d, trainable)
        if padding_idx is not None:
            padding_idx = whole(who, "padding_idx", padding_idx, -n, n - 1) % n
        self.padding_idx = padding_idx
        self.max_norm, self.norm_type = max_norm, norm_type
        for name, value in (("scale_grad_by_freq", scale_grad_by_freq), ("sparse", sparse)):
            if value:
                raise GpuzipError(
                    f"{who}: {name} must be False; compressed rows have no gradients. "
                    "To train, use trainable='codebook' or 'scale'."
                )
        self.scale_grad_by_freq = self.sparse = False

    def fill(
        self,
        weight: Matrix | None,
        bits: int,
        codec: Codec | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        """Compress and store the weight. Without one, draw N(0, 1) as torch's layers do."""
        who = type(self).__name__
        if weight is None:
            device, dtype = device or torch.get_default_device(), dtype or torch.get_default_dtype()
            if torch.device(device).type == "meta":
                return self.hold(*self._without_memory(bits, dtype))
            weight = self._drawn().to(device, dtype)
        weight = as_matrix(who, "_weight", weight)
        if isinstance(weight, Tensor):
            weight = weight.detach().to(device=device, dtype=dtype)
        shape = self.num_embeddings, self.embedding_dim
        if tuple(weight.shape) != shape:
            raise GpuzipError(
                f"{who}: _weight must have shape (num_embeddings, embedding_dim) = {shape}; got "
                f"{tuple(weight.shape)}."
            )
        codes, codebook = compressed(who, weight, bits, codec, device, dtype)
        row = None if self.padding_idx is None else row_of(weight, self.padding_idx).to(codebook)
        return self.hold(codes, codebook, row)

    def hold_codes(self, codes: Codes) -> None:
        """Store the table of compressed rows, and the decoded row at padding_idx."""
        table, data = codes.codec.as_table(codes.packed.data)
        row = None if self.padding_idx is None else codes[self.padding_idx].decode().view(-1)
        self.hold(data.detach(), table.codebook.to(codes.dtype, copy=True), row)

    def _drawn(self) -> Tensor:
        shape = self.num_embeddings, self.embedding_dim
        weight = torch.randn(shape, generator=torch.default_generator, device="cpu", dtype=torch.float32)
        if self.padding_idx is not None:
            weight[self.padding_idx] = 0
        return weight

    def _without_memory(self, bits: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor | None]:
        bits, d = whole(type(self).__name__, "bits", bits, 1, 8), self.embedding_dim
        codes = torch.empty((self.num_embeddings, code_bytes(d, bits)), dtype=torch.uint8, device="meta")
        codebook = torch.empty((1, 1 << bits, 1), dtype=dtype, device="meta")
        return codes, codebook, None if self.padding_idx is None else codebook.new_empty(d)

    def rows(self, ids: Tensor) -> Tensor:
        """Decode rows of int32 or int64 ids of any shape, flattened to (R, D). Raises IndexError on a CPU."""
        quick = self.quick_rows(ids)
        if quick is not None:
            return quick.view(-1, self.embedding_dim)
        self.check_ids(ids)
        traced = torch.compiler.is_compiling() or _get_tracing_state() is not None
        checked = ids.device.type == "cpu" and not traced
        if checked:
            self._check_range(ids)
        self._check_device(ids)
        rows = self.decoded(self.codes, ids.reshape(-1).long())
        return rows if self.padding_idx is None else self._padded(rows, ids.reshape(-1), checked)

    def quick_rows(self, ids: Tensor) -> Tensor | None:
        """Decode rows as `rows` does, (*shape, D), in one short call, or return None to have `rows` do it."""
        if self._parameters or type(ids) is not Tensor:  # nothing learns
            return None
        if ids.dtype is not torch.int64:
            if ids.dtype is not torch.int32:
                return None
            ids = ids.long()
        buffers, D = self._buffers, self.embedding_dim  # faster than the attributes of a module
        codes, codebook, row = buffers.get("codes"), buffers.get("codebook"), buffers.get("padding_row")
        if codes is None or codebook is None:
            return None
        padding = -1 if row is None or self.padding_idx is None else self.padding_idx
        return rows_by_id(codes, codebook, ids, D, padding, row)

    def decoded(self, codes: Tensor, ids: Tensor | None = None) -> Tensor:
        """Decode packed codes, or those at ids, to (R, D). padding_idx is not considered."""
        rows = lookup(codes, self.codebook, ids, sharing(self.codebook, self.embedding_dim))
        if rows.shape[1] != self.embedding_dim:
            rows = rows[:, : self.embedding_dim]
        return rows if self.scale is None else rows * self.scale

    def check_ids(self, ids: Tensor) -> None:
        """Raise DtypeError unless ids is a tensor of int64 or int32."""
        if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
            came = str(ids.dtype) if isinstance(ids, Tensor) else type(ids).__name__
            raise DtypeError(
                f"{type(self).__name__}: input must be a tensor of int64 or int32; "
                f"got {came.removeprefix('torch.')}. Convert it, for example with torch.as_tensor(x).long()."
            )

    def _check_range(self, ids: Tensor) -> None:
        if ids.numel():
            low, high = ids.aminmax()
            if int(low) < 0 or int(high) >= self.num_embeddings:
                raise IndexError("index out of range in self")  # the message of nn.Embedding

    def _check_device(self, ids: Tensor) -> None:
        if ids.device != self.codes.device:
            raise GpuzipError(
                f"{type(self).__name__}: input must be on {self.codes.device} like the codes; got "
                f"{ids.device}. Move one of them with .to()."
            )

    def _padded(self, rows: Tensor, ids: Tensor, in_place: bool) -> Tensor:
        index, kept = self.padding_idx, self.padding_row
        assert index is not None and kept is not None
        padding = torch.eq(ids, index)
        if not in_place or rows.requires_grad:
            return torch.where(padding[:, None], kept, rows)
        at = padding.nonzero().view(-1)  # on a CPU faster than `where` over all rows
        if len(at):
            rows[at] = kept
        return rows

    def clipped(self, rows: Tensor) -> Tensor:
        """Scale rows whose norm exceeds max_norm down to it, as nn.Embedding does."""
        if self.max_norm is None:
            return rows
        norms = torch.linalg.vector_norm(rows, self.norm_type, dim=1, keepdim=True)
        norms = norms if norms.dtype == torch.float64 else norms.float()
        factor = torch.where(norms > self.max_norm, self.max_norm / (norms + 1e-7), 1.0)
        return (rows * factor).to(rows.dtype)

    @property
    def weight(self) -> Tensor:
        """Decoded rows (N, D): a new copy without gradient on each access, so writing to it has no effect."""
        with torch.no_grad():
            rows = self.decoded(self.codes).contiguous()
            if self.padding_row is not None:
                rows[self.padding_idx] = self.padding_row
            return rows


def shape_of(cls: type[QuantizedTable], embeddings: Matrix) -> tuple[int, int]:
    """Return (N, D) of the embeddings that from_pretrained was given. Raises GpuzipError."""
    rows = Rows(f"{cls.__name__}.from_pretrained", embeddings, name="embeddings")
    return rows.n, rows.d


def learning(cls: type[QuantizedTable], freeze: bool | None, trainable: Trainable | None) -> Trainable | None:
    """Return `trainable` as nn.Embedding's argument `freeze` implies it."""
    if freeze and trainable is not None:
        raise GpuzipError(
            f"{cls.__name__}.from_pretrained: freeze=True contradicts trainable={trainable!r}. "
            "Pass one of them."
        )
    return "codebook" if freeze is False and trainable is None else trainable
