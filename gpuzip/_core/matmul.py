"""Matrix products that the caller's settings of torch do not change: autocast, tf32, bfloat16."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gpuzip._core.device import is_gpu, kind
from gpuzip._core.probe import times

_HAS_NEWER = hasattr(torch.backends, "fp32_precision")
_EXACT = "ieee" if _HAS_NEWER else "highest"
_DTYPES = torch.float32, torch.bfloat16
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


def bfloat16_share() -> float:
    """The time of a bfloat16 product in times of one of float32, by a probe; inf on a CPU without a unit."""
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    if not (has_amx or has_bf16):  # torch would run a plain loop, and the probe some tenths of a second
        return float("inf")
    seconds = times("products of rows", {str(dtype): _product(dtype) for dtype in _DTYPES})
    whole, rounded = (seconds[str(dtype)] for dtype in _DTYPES)
    return rounded / whole


def _product(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    rows = torch.ones(1024, 384, dtype=dtype, device="cpu")
    queries = torch.ones(384, 128, dtype=dtype, device="cpu")
    return lambda: matrix_product(torch.matmul, rows, queries)
