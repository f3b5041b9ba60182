"""The tensors of a compressed table as the state of a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from gpuzip._core.planes import owned
from gpuzip.errors import GpuzipError
from gpuzip.nn._marks import Mark, holder_of, is_mark
from gpuzip.nn._shapes import Trainable, misfit, sharing

if TYPE_CHECKING:
    from typing_extensions import Self


class StoredTable(nn.Module):
    """Hold N compressed rows of D values; the shapes of the tensors are all the settings.

    Buffers: `codes` (N, B) uint8, `codebook` (C, K, S) in the dtype of the rows, and `padding_row` (D,) if
    there is a padding_idx. With trainable="codebook" the codebook is a parameter; with "scale", `scale` (D,)
    is one.
    """

    codes: Tensor
    codebook: Tensor
    padding_row: Tensor | None
    scale: nn.Parameter | None
    num_embeddings: int
    embedding_dim: int
    trainable: Trainable | None

    def __init__(self, num_embeddings: int, embedding_dim: int, trainable: Trainable | None) -> None:
        super().__init__()
        if trainable is not None and trainable not in get_args(Trainable):
            raise GpuzipError(
                f"{type(self).__name__}: trainable must be None, 'codebook' or 'scale'; got {trainable!r}."
            )
        self.num_embeddings, self.embedding_dim, self.trainable = num_embeddings, embedding_dim, trainable

    def hold(self, codes: Tensor, codebook: Tensor, padding_row: Tensor | None) -> None:
        """Make these the state of the module. It keeps the rows of a slice alone, not those of its parent."""
        self.register_buffer("codes", owned(codes))
        if self.trainable == "codebook":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
        self.register_buffer("padding_row", padding_row)
        scaled = self.trainable == "scale"
        self.scale = nn.Parameter(codebook.new_ones(self.embedding_dim)) if scaled else None

    def share(self, other: StoredTable) -> None:
        """Use the tensors of another module, as for tied weights. The padding row is not shared."""
        self.codes, self.codebook, self.scale = other.codes, other.codebook, other.scale

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers and parameters."""
        return sum(tensor.nbytes for tensor in (*self.parameters(), *self.buffers()))

    @property
    def ratio(self) -> float:
        """Compression ratio: bytes of the decoded rows over `nbytes`."""
        return self.num_embeddings * self.embedding_dim * self.codebook.itemsize / self.nbytes

    def extra_repr(self) -> str:
        (C, K, _), share = self.codebook.shape, sharing(self.codebook, self.embedding_dim)
        usual = {"padding_idx": None, "max_norm": None, "norm_type": 2.0, "mode": None, "trainable": None}
        settings = {name: getattr(self, name, usual[name]) for name in usual}
        parts = [
            *(str(self.num_embeddings), str(self.embedding_dim)),
            *(f"{name}={value!r}" for name, value in settings.items() if value != usual[name]),
            f"{C * share} codes of {K.bit_length() - 1} bits",
            f"{self.nbytes} bytes",
            f"{self.ratio:.1f}x smaller",
        ]
        return ", ".join(parts)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move buffers in place, as torch does with parameters, so that tied modules stay tied."""
        for buffer in self.buffers(recurse=False):
            with torch.no_grad():
                moved = fn(buffer)
            inference = buffer.is_inference() or moved.is_inference()  # such tensors cannot change type
            if not inference and torch._has_compatible_shallow_copy_type(buffer, moved):
                buffer.data = moved
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Save the tensors. Checkpoints of whole models have a mark, too, and codes of tied tables once."""
        name = prefix.removesuffix(".")
        holder = holder_of(self.codes, name)
        if holder in (None, name):
            super()._save_to_state_dict(destination, prefix, keep_vars)
        elif self.padding_row is not None:
            destination[f"{prefix}padding_row"] = self.padding_row
        if holder is not None:
            mark = Mark(self.trainable, None if holder == name else holder, self.embedding_dim)
            destination[f"{prefix}weight"] = mark.to_tensor()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load codes and codebook of any codec that fit each other, N and D."""
        if f"{prefix}weight" in state_dict and f"{prefix}codes" not in state_dict:
            error_msgs.append(
                f"{prefix}weight is a dense table, and this module holds codes. Load the checkpoint into the "
                "dense model, then call quantize_embeddings_."
            )
            return
        if f"{prefix}weight" in state_dict and is_mark(state_dict[f"{prefix}weight"]):
            state_dict = {key: tensor for key, tensor in state_dict.items() if key != f"{prefix}weight"}
        names = ("codes", "codebook")
        given = {name: state_dict[prefix + name] for name in names if prefix + name in state_dict}
        if all(isinstance(tensor, Tensor) for tensor in given.values()):
            codes, codebook = (given.get(name, getattr(self, name)) for name in names)
            wrong = misfit(codes, codebook, self.num_embeddings, self.embedding_dim)
            if wrong is not None:
                error_msgs.append(f"{prefix}codes and {prefix}codebook do not fit this module: {wrong}.")
                return
            for name, tensor in given.items():
                mine = getattr(self, name)
                if mine.shape != tensor.shape:
                    mine.data = mine.data.new_empty(tensor.shape)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
