"""Rows of a compressed table, and the gradient of its codebook."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpuzip.ops import centroid_sums, decode, unpack_bits


def lookup(codes: Tensor, codebook: Tensor, ids: Tensor | None, share: int) -> Tensor:
    """`gpuzip.ops.decode`, also of float64, with a gradient for the codebook.

    codes (N, B) uint8, codebook (C, K, S), ids (R,) int64 or None for all rows -> (R, C*share*S).
    """
    if torch.is_grad_enabled() and codebook.requires_grad:
        rows: Tensor = _Lookup.apply(codebook, codes, ids, share)  # type: ignore[no-untyped-call]
        return rows
    return _decode(codes, codebook, ids, share)


def _decode(codes: Tensor, codebook: Tensor, ids: Tensor | None, share: int) -> Tensor:
    if codebook.dtype == torch.float64:  # a copy of values is a copy of their halves
        return decode(codes, codebook.view(torch.float32), ids, share).view(torch.float64)
    return decode(codes, codebook, ids, share)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(codebook: Tensor, codes: Tensor, ids: Tensor | None, share: int) -> Tensor:
        return _decode(codes, codebook, ids, share)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        codebook, codes, ids, share = inputs
        ctx.save_for_backward(codes, ids)
        ctx.shape, ctx.share = codebook.shape, share

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,), (codes, ids) = grads, ctx.saved_tensors
        if ids is not None:
            known = (ids >= 0) & (ids < codes.shape[0])
            grad = torch.where(known[:, None], grad, 0)
            codes = codes[torch.where(known, ids, 0)]
        return _sums(grad, codes, ctx.shape, ctx.share), None, None, None


def _sums(grad: Tensor, codes: Tensor, shape: tuple[int, int, int], share: int) -> Tensor:
    """(R, M*S) summed by code into the codebook's shape, in an order that is always the same."""
    C, K, S = shape
    M = C * share
    labels = unpack_bits(codes, M, K.bit_length() - 1)
    if grad.dtype == torch.float64:
        cells = labels + torch.arange(M, device=grad.device) // share * K
        total = grad.new_zeros((C * K, S))
        return total.index_put_((cells.view(-1),), grad.reshape(-1, S), accumulate=True).view(C, K, S)
    sums, _ = centroid_sums(grad.float().contiguous(), labels, K)
    return sums.view(C, share, K, S).sum(1).to(grad.dtype)
