"""Exact products of byte matrices on a CPU, by the fastest torch matrix product that is exact there."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import cast

import torch
from torch import Tensor

from gpuzip._core.matmul import matrix_product
from gpuzip._core.probe import fastest

_TRIED = 512, 32  # rows and queries of the timed product
_COPIED = 1024  # rows whose copy in float32 stays in a cache
_DIMS = 512  # sums of as many products of 0..255 with -128..127 stay below 2**24: exact in float32

Products = Callable[[Tensor, Tensor], Tensor]


def byte_products(values: Tensor, queries: Tensor) -> Tensor:
    """(n, D) uint8, (Q, D) int8 -> exact (n, Q) products, as int32 or float32. D is at most 65536."""
    return _PATHS[fastest_product()](values, queries)


def products_of_floats(values: Tensor, queries: Tensor) -> Tensor:
    """The same as `byte_products`, by float32 products of at most _DIMS columns, whose sums are exact."""
    D = queries.shape[1]
    if D <= _DIMS:
        return _floats_of(values, queries)
    total = torch.zeros((len(values), len(queries)), dtype=torch.int32, device="cpu")
    for first in range(0, D, _DIMS):
        some = slice(first, first + _DIMS)
        total += _floats_of(values[:, some], queries[:, some]).int()
    return total


def _floats_of(values: Tensor, queries: Tensor) -> Tensor:
    products: Tensor = matrix_product(_by_blocks, values, queries.T.float())
    return products


def _by_blocks(values: Tensor, columns: Tensor) -> Tensor:
    """Products of few rows at a time: a copy of all in float32 costs more than its products."""
    N, (D, Q) = len(values), columns.shape
    copied = torch.empty((min(N, _COPIED), D), dtype=torch.float32, device="cpu")
    products = torch.empty((N, Q), dtype=torch.float32, device="cpu")
    into, multiply = products, cast(Callable[..., Tensor], torch.matmul)
    if Q == 1:  # fewer steps per call
        into, columns, multiply = products[:, 0], columns[:, 0], torch.mv
    for start in range(0, N, _COPIED):
        stop = min(start + _COPIED, N)
        rows = copied[: stop - start].copy_(values[start:stop])
        multiply(rows, columns, out=into[start:stop])
    return products


def products_of_bytes(values: Tensor, queries: Tensor) -> Tensor:
    """The same as `byte_products`, by torch._int_mm.

    torch._int_mm is wrong for non-contiguous operands and for D = 1, so both cases are avoided.
    """
    if queries.shape[1] == 1:
        return products_of_floats(values, queries)
    signed = (values.contiguous() ^ 128).view(torch.int8)
    return torch._int_mm(signed, queries.T.contiguous()) + (128 * queries.sum(1)).int()


_PATHS: dict[str, Products] = {"floats": products_of_floats, "bytes": products_of_bytes}


def fastest_product(others: dict[str, Products] | None = None) -> str:
    """The name of the fastest exact path on this CPU: "floats", "bytes", or one of the caller's `others`."""
    paths = {name: path for name, path in _PATHS.items() if name != "bytes" or bytes_are_exact()}
    paths |= others or {}
    return fastest("products of bytes", {name: _bound(path) for name, path in paths.items()})


def _bound(path: Products) -> Callable[[], Tensor]:
    return lambda: path(*_tried())


@cache
def _tried() -> tuple[Tensor, Tensor]:
    values, queries = (torch.arange(n * _DIMS, device="cpu").byte().view(n, _DIMS) for n in _TRIED)
    return values, queries.view(torch.int8)


@cache
def bytes_are_exact() -> bool:
    """Whether this CPU multiplies signed bytes exactly, without saturating 16-bit sums of two products."""
    values = (
        torch.tensor([0, 255], dtype=torch.uint8, device="cpu").repeat_interleave(32)[:, None].repeat(1, 512)
    )
    for Q in (1, 32):
        queries = torch.tensor([-128, 127], dtype=torch.int8, device="cpu").repeat(Q)[:Q, None].repeat(1, 512)
        try:
            if not torch.equal(products_of_bytes(values, queries), products_of_floats(values, queries).int()):
                return False
        except (AttributeError, RuntimeError):  # this torch has no such product
            return False
    return True
