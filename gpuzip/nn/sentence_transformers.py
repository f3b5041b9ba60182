"""Compressed embeddings in models of sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from torch import Tensor, nn

import gpuzip.nn.transformers  # noqa: F401  which reads the models within
from gpuzip.errors import FormatError
from gpuzip.nn._marks import Mark, marking
from gpuzip.nn._table import QuantizedTable
from gpuzip.nn._tables import load_state


class CompressedStaticEmbedding(StaticEmbedding):  # type: ignore[misc]
    """A StaticEmbedding whose table is compressed. `quantize_embeddings_` makes one in place.

    Its folder names this class, so that sentence-transformers loads it with `trust_remote_code=True`, and
    says so without; `gpuzip.nn.load_compressed` needs no such setting.
    """

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Write codes, codebook and tokenizer.

        Parameters
        ----------
        output_path : str
            Folder that exists.
        *args : Any
            As in StaticEmbedding.
        **kwargs : Any
            As in StaticEmbedding.
        """
        with marking():
            super().save(output_path, *args, **kwargs)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> CompressedStaticEmbedding:
        """Read what `save` wrote.

        Parameters
        ----------
        model_name_or_path : str
            Folder or name of the model.
        subfolder : str, default ""
            Folder of this module within it.
        **kwargs : Any
            As in StaticEmbedding.

        Returns
        -------
        CompressedStaticEmbedding
            The module.
        """
        wanted = ("token", "cache_folder", "revision", "local_files_only")
        hub = {name: kwargs[name] for name in wanted if name in kwargs} | {"subfolder": subfolder}
        tokenizer = Tokenizer.from_file(cls.load_file_path(model_name_or_path, "tokenizer.json", **hub))
        state = cls.load_torch_weights(model_name_or_path, **hub)
        dense = torch.empty(_shape(state, model_name_or_path), dtype=torch.float32, device="meta")
        module = cls(tokenizer, embedding_weights=dense)
        load_state(module, state)
        return module


def _shape(state: Mapping[str, Tensor], where: str) -> tuple[int, int]:
    codes, mark = state.get("embedding.codes"), state.get("embedding.weight")
    if codes is None or mark is None or codes.ndim != 2:
        raise FormatError(f"{where}: must hold a compressed StaticEmbedding. Restore it, or save it again.")
    width = Mark.of_tensor("embedding.weight", mark).embedding_dim
    assert width is not None
    return len(codes), width


def adopt(model: nn.Module) -> set[nn.Module]:
    """Let every StaticEmbedding within this model save its compressed table. Returns them."""
    adopted: set[nn.Module] = set()
    for part in model.modules():
        if isinstance(part, StaticEmbedding) and isinstance(part.embedding, QuantizedTable):
            if type(part) is StaticEmbedding:
                part.__class__ = CompressedStaticEmbedding
            if isinstance(part, CompressedStaticEmbedding):
                adopted.add(part)
    return adopted
