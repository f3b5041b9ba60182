"""Centroids rounded for a matrix product, and by how much rounding moves a score at most."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gpuzip._core.matmul import products_are_float32


@dataclass(frozen=True)
class Product:
    """Centroids prepared for the matrix product. They depend on the codec alone and are kept with its codes.

    table: (M, K, S), centroids times `scale`, a power of two. row_error: see `error_of_rows`. unit: the
    largest relative rounding error of a value; rounded: the same for a product. shortest: the least norm that
    the longest query is taken to have, so that scaled squared norms of rows fit in float32.
    """

    table: Tensor
    scale: float
    row_error: float
    unit: float
    rounded: float
    shortest: float


def unit_of(dtype: torch.dtype, device: torch.device) -> float:
    """The largest relative rounding error of a factor of a product."""
    if dtype == torch.float32 and not products_are_float32(device):
        dtype = torch.bfloat16  # or tf32, which is nearer
    return torch.finfo(dtype).eps / 2


def product_of(centroids: Tensor, dtype: torch.dtype, unit: float) -> Product:
    """The Product of these centroids; waits for a GPU."""
    scale = 1.0
    if dtype == torch.float16:
        largest = float(centroids.abs().amax())
        scale = math.ldexp(1.0, max(-60, min(60, 15 - math.frexp(largest)[1]))) if largest > 0 else 1.0
    table = (centroids * scale).to(dtype)
    row_error = float(error_of_rows(centroids, table.float() / scale, dtype))
    rounded = unit if dtype == torch.bfloat16 else 2.0**-22
    return Product(table, scale, row_error, unit, rounded, 2.0**-60 * max(1.0, 1 / scale))


def error_of(D: int, product: Product, reach: float, inverse: float) -> float:
    """The largest rounding error for a query of norm 1: of its values, the row's, sums and the product.

    reach: the largest norm of rows, times `inverse`, by which products are multiplied.
    With q' and x' the rounded factors, |q.x - q'.x'| <= |q - q'| |x| + |q'| |x - x'|. The first difference is
    at most u plus what float16 loses below its normal range, 2**-25 per dimension of a query of norm 1. The
    second is at most u |x| + `row_error`. Sums are of D products in float32, and then scaled back.
    """
    u = 1.01 * product.unit
    query = u + 2.0**-22 + math.sqrt(D) * 2.0**-25
    row_error, rounded = product.row_error * inverse, 1.05 * product.rounded
    error = reach * (query + 1.02 * (u + (D + 8) * 2.0**-22) + rounded) + (1.02 + rounded) * row_error
    return 1.02 * error


def error_of_rows(centroids: Tensor, rounded: Tensor, dtype: torch.dtype) -> Tensor:
    """t such that |x - x'| <= u |x| + t for any row x of centroids and its row x' of rounded centroids.

    Rounding moves a value by at most u times itself, except below the normal range. t adds up, over the
    sub-spaces, the largest excess of a centroid.
    """
    error = torch.linalg.vector_norm(centroids - rounded, dim=2)
    normal = torch.finfo(dtype).eps / 2 * torch.linalg.vector_norm(centroids, dim=2)
    excess = (1.001 * error - normal).clamp(min=0)  # [M, K]; 1.001 covers the rounding of this sum
    bound: Tensor = 1.01 * torch.linalg.vector_norm(excess.amax(1))
    return bound
