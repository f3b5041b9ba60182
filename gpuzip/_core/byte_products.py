"""Exact products of bytes on a CPU, by the fastest of torch's matrix products that are exact there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from gpuzip._core.probe import fastest

_TRIED = 512, 32  # rows and queries of what is timed
_DIMS = 512  # sums of as many products of 0..255 with -128..127 stay below 2**24: exact in float32

Products = Callable[[Tensor, Tensor], Tensor]


def byte_products(values: Tensor, queries: Tensor) -> Tensor:
    """(n, D) uint8, (Q, D) int8 -> (n, Q) int32 or, where they are as exact, float32. For D up to 65536."""
    return _ROADS[fastest_product()](values, queries)


def products_of_floats(values: Tensor, queries: Tensor) -> Tensor:
    """As `byte_products`, by products whose sums float32 holds."""
    D = queries.shape[1]
    if D <= _DIMS:
        return values.float() @ queries.T.float()
    parts = [slice(first, first + _DIMS) for first in range(0, D, _DIMS)]
    return sum(((values[:, some].float() @ queries[:, some].T.float()).int() for some in parts), _zero())


def _zero() -> Tensor:
    return torch.zeros((), dtype=torch.int32)


def products_of_bytes(values: Tensor, queries: Tensor) -> Tensor:
    """As `byte_products`, by torch's product of signed bytes, which misreads other strides and D = 1."""
    if queries.shape[1] == 1:
        return products_of_floats(values, queries)
    signed = (values.contiguous() ^ 128).view(torch.int8)
    return torch._int_mm(signed, queries.T.contiguous()) + (128 * queries.sum(1)).int()


_ROADS: dict[str, Products] = {"floats": products_of_floats, "bytes": products_of_bytes}


def fastest_product(others: dict[str, Products] | None = None) -> str:
    """The fastest exact road here: "floats", "bytes", or one of the others that a caller has."""
    roads = {name: road for name, road in _ROADS.items() if name != "bytes" or bytes_are_exact()}
    roads |= others or {}
    values, queries = (torch.arange(n * _DIMS).byte().view(n, _DIMS) for n in _TRIED)
    asked = queries.view(torch.int8)
    return fastest("products of bytes", {name: _bound(road, values, asked) for name, road in roads.items()})


def _bound(road: Products, values: Tensor, queries: Tensor) -> Callable[[], Tensor]:
    return lambda: road(values, queries)


@cache
def bytes_are_exact() -> bool:
    """Whether this CPU multiplies signed bytes without saturating sums of two in 16 bits on the way."""
    values = torch.tensor([0, 255], dtype=torch.uint8).repeat_interleave(32)[:, None].repeat(1, 512)
    for Q in (1, 32):
        queries = torch.tensor([-128, 127], dtype=torch.int8).repeat(Q)[:Q, None].repeat(1, 512)
        try:
            if not torch.equal(products_of_bytes(values, queries), products_of_floats(values, queries).int()):
                return False
        except (AttributeError, RuntimeError):  # no such product here
            return False
    return True
