"""Settings that follow from the shapes of codes and codebook, and whether the two fit."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from gpuzip.ops import code_bytes

Trainable = Literal["codebook", "scale"]


def sharing(codebook: Tensor, embedding_dim: int) -> int:
    """Return how many neighbouring sub-spaces share one of C codebooks: the fewest that fill a row."""
    C, _, S = codebook.shape
    return -(-embedding_dim // (C * S))


def misfit(codes: Tensor, codebook: Tensor, num_embeddings: int, embedding_dim: int) -> str | None:
    """Return why codes and codebook do not make this table, or None if they do."""
    if codes.dtype != torch.uint8 or codes.ndim != 2 or codes.shape[0] != num_embeddings:
        return f"codes must be ({num_embeddings}, B) uint8; got {_said(codes)}"
    if not codebook.is_floating_point() or codebook.ndim != 3 or codebook.numel() == 0:
        return f"the codebook must be (C, K, S) floats; got {_said(codebook)}"
    C, K, _ = codebook.shape
    nbits = K.bit_length() - 1
    if not (1 <= nbits <= 16 and 1 << nbits == K):
        return f"the codebook must have 2, 4, ... or 65536 entries; got {K}"
    B = code_bytes(C * sharing(codebook, embedding_dim), nbits)
    if codes.shape[1] != B:
        return (
            f"codes must have {B} bytes per row, for {embedding_dim} dims and a codebook "
            f"{tuple(codebook.shape)}; got {codes.shape[1]}"
        )
    return None


def _said(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
