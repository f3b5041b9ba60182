"""Exact products of bytes on a CPU, by whichever of torch's matrix products keeps every digit there."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

_DIMS = 1024  # products of -128..127 with -128..127 over so many dims stay within 2**24: exact in float32


def byte_products(values: Tensor, queries: Tensor) -> Tensor:
    """(n, D) uint8, (Q, D) int8 -> (n, Q) int32. Exact for D up to 65536."""
    if queries.shape[1] > 1 and bytes_are_exact():
        return products_of_bytes(values, queries)
    return products_of_floats(values, queries)


def products_of_floats(values: Tensor, queries: Tensor) -> Tensor:
    """As `byte_products`, by products whose sums float32 holds."""
    rows, whole = values.float() - 128, queries.float()
    dots = (128 * queries.sum(1)).int()
    for first in range(0, queries.shape[1], _DIMS):
        some = slice(first, first + _DIMS)
        dots = dots + (rows[:, some] @ whole[:, some].T).int()
    return dots


def products_of_bytes(values: Tensor, queries: Tensor) -> Tensor:
    """As `byte_products`, by torch's product of signed bytes, which misreads other strides and D = 1."""
    signed = (values.contiguous() ^ 128).view(torch.int8)
    return torch._int_mm(signed, queries.T.contiguous()) + (128 * queries.sum(1)).int()


@cache
def bytes_are_exact() -> bool:
    """Whether this CPU multiplies signed bytes without saturating sums of two in 16 bits on the way."""
    values = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(32)[:, None].repeat(1, 512)
    for Q in (1, 32):
        queries = torch.tensor([-128, 127], dtype=torch.int8).repeat(Q)[:Q, None].repeat(1, 512)
        try:
            if not torch.equal(products_of_bytes(values, queries), products_of_floats(values, queries)):
                return False
        except (AttributeError, RuntimeError):  # no such product here
            return False
    return True
