"""Arithmetic on a few values by numpy, whose calls take less time than torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from gpuzip._core.device import is_on_cpu


def is_plain(x: Tensor) -> bool:
    """Whether numpy may read x: a tensor of no subclass, on the CPU, that is not differentiated."""
    return type(x) is Tensor and is_on_cpu(x) and not x.requires_grad


def finite_inverse(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """1 / x of float32 that are not negative, and 0 where that is not finite."""
    inverse = np.zeros_like(x)
    np.divide(1, x, out=inverse, where=x > 2.0**-128)
    return inverse


def sums_of_products(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(Q,) float64: of rows (Q, D) float32 with rows or with (D,), summed in order as loops do."""
    products = x.astype(np.float64) * y  # which are exact
    sums: np.ndarray[Any, Any] = np.cumsum(products, 1)[:, -1] if x.shape[1] else np.zeros(len(x))
    return sums


def unit_rows(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Rows (Q, D) float32 divided by their norms, which are summed in float64; a row of zeros stays zero."""
    norms = np.sqrt(sums_of_products(x, x))
    factors = np.zeros_like(norms)
    np.divide(1, norms, out=factors, where=norms > 2.0**-127)
    unit: np.ndarray[Any, Any] = x * factors.astype(np.float32)[:, None]
    return unit
