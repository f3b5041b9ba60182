"""Matrix products of float32: what torch's settings make of them, and whether bfloat16 is faster here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gpuzip._core.device import is_gpu
from gpuzip._core.probe import fastest

_FULL = ("ieee", "none")  # "none" is nobody's wish, and torch's own default is ieee for products


def products_are_float32(device: torch.device) -> bool:
    """Whether torch rounds nothing before a product of float32 there: neither to tf32 nor to bfloat16.

    Torch has two sets of switches, and once the newer (2.9) is used the older raises when it is read.
    """
    newer = getattr(torch.backends, "fp32_precision", None)
    if newer is None:
        loose = is_gpu(device) and torch.backends.cuda.matmul.allow_tf32
        return torch.get_float32_matmul_precision() == "highest" and not loose
    backend: Any = torch.backends.cuda if is_gpu(device) else torch.backends.mkldnn
    return backend.matmul.fp32_precision in _FULL


def bfloat16_is_faster() -> bool:
    """Whether this CPU has a unit for products of bfloat16, and a probe finds it faster than float32."""
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    if not (has_amx or has_bf16):  # a plain loop then, which would take the probe some tenths of a second
        return False
    roads = {str(dtype): _product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return fastest("products of rows", roads) == str(torch.bfloat16)


def _product(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    rows, queries = torch.ones(1024, 384, dtype=dtype), torch.ones(384, 128, dtype=dtype)
    return lambda: rows @ queries
