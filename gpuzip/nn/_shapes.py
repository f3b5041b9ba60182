"""What the shapes of a compressed table say, and whether codes and codebook fit together."""

from __future__ import annotations

import torch
from torch import Tensor

from gpuzip.ops import code_bytes


def sharing(codebook: Tensor, embedding_dim: int) -> int:
    """How many neighbouring sub-spaces read one codebook of (C, K, S): the fewest that fill a row."""
    C, _, S = codebook.shape
    return -(-embedding_dim // (C * S))


def misfit(codes: Tensor, codebook: Tensor, num_embeddings: int, embedding_dim: int) -> str | None:
    """Why these are not num_embeddings rows of embedding_dim values; None where they are."""
    if codes.dtype != torch.uint8 or codes.ndim != 2 or codes.shape[0] != num_embeddings:
        return f"codes are {_said(codes)}, ({num_embeddings}, B) uint8 is needed"
    if not codebook.is_floating_point() or codebook.ndim != 3 or codebook.numel() == 0:
        return f"the codebook is {_said(codebook)}, (C, K, S) of floats is needed"
    C, K, _ = codebook.shape
    nbits = K.bit_length() - 1
    if not (1 <= nbits <= 16 and 1 << nbits == K):
        return f"the codebook has {K} entries, 2**1 to 2**16 are needed"
    B = code_bytes(C * sharing(codebook, embedding_dim), nbits)
    if codes.shape[1] != B:
        return (
            f"codes have {codes.shape[1]} bytes per row, a codebook {tuple(codebook.shape)} "
            f"for {embedding_dim} dims needs {B}"
        )
    return None


def _said(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
