"""Matrix products that the caller's settings of torch do not change: autocast, tf32, bfloat16."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.device import is_gpu, kind

_HAS_NEWER = hasattr(torch.backends, "fp32_precision")
_EXACT = "ieee" if _HAS_NEWER else "highest"
_FULL = (_EXACT, "none")  # "none" means unset, for which torch computes products in ieee float32


def products_are_float32(device: torch.device) -> bool:
    """Whether float32 products on this device are computed without rounding inputs to tf32 or bfloat16.

    Torch has two sets of switches. Once the newer one (2.9) has been used, reading the older one raises.
    """
    return _precision(device) in _FULL


def _precision(device: torch.device) -> str:
    if _HAS_NEWER:
        return str(_backend(device).fp32_precision)
    if is_gpu(device) and torch.backends.cuda.matmul.allow_tf32:
        return "high"
    return torch.get_float32_matmul_precision()


def _set_precision(device: torch.device, precision: str) -> None:
    if _HAS_NEWER:
        _backend(device).fp32_precision = precision
    else:
        torch.set_float32_matmul_precision(precision)


def _backend(device: torch.device) -> Any:
    return (torch.backends.cuda if is_gpu(device) else torch.backends.mkldnn).matmul


def matrix_product(function: Callable[..., Tensor], *factors: Tensor, **options: Any) -> Tensor:
    """Call a product such as torch.mm in the dtype of its factors.

    Autocast would round the factors to 16 bits, in the caller's thread and not in others; the switches of
    float32 products would round them to tf32 or bfloat16.
    """
    device = factors[0].device
    if torch.is_autocast_enabled(device.type):
        with torch.autocast(device.type, enabled=False):
            return matrix_product(function, *factors, **options)
    if products_are_float32(device):
        return function(*factors, **options)
    with _float32_products(device):
        return function(*factors, **options)


_lock = threading.Lock()
_inside = {"cpu": 0, "cuda": 0}  # products that run within `_float32_products`
_outside: dict[str, Any] = {}  # the caller's setting, meanwhile


@contextmanager
def _float32_products(device: torch.device) -> Iterator[None]:
    """Compute float32 products in float32 within the block.

    The first of several threads changes torch's switch, and the last one restores it.
    """
    where = kind(device)
    with _lock:
        if _inside[where] == 0:
            _outside[where] = _precision(device)
            _set_precision(device, _EXACT)
        _inside[where] += 1
    try:
        yield
    finally:
        with _lock:
            _inside[where] -= 1
            if _inside[where] == 0:
                _set_precision(device, _outside.pop(where))
