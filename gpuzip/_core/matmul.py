"""Matrix products of float32: whether torch's settings keep them exact, and whether bfloat16 is faster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from gpuzip._core.device import is_gpu
from gpuzip._core.probe import fastest

_FULL = ("ieee", "none")  # "none" means unset, for which torch computes products in ieee float32


def products_are_float32(device: torch.device) -> bool:
    """Whether float32 products on this device are computed without rounding inputs to tf32 or bfloat16.

    Torch has two sets of switches. Once the newer one (2.9) has been used, reading the older one raises.
    """
    newer = getattr(torch.backends, "fp32_precision", None)
    if newer is None:
        loose = is_gpu(device) and torch.backends.cuda.matmul.allow_tf32
        return torch.get_float32_matmul_precision() == "highest" and not loose
    backend: Any = torch.backends.cuda if is_gpu(device) else torch.backends.mkldnn
    return backend.matmul.fp32_precision in _FULL


def bfloat16_is_faster() -> bool:
    """Whether this CPU has a bfloat16 unit and a probe finds its products faster than those of float32."""
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    if not (has_amx or has_bf16):  # torch would run a plain loop, and the probe some tenths of a second
        return False
    paths = {str(dtype): _product(dtype) for dtype in (torch.float32, torch.bfloat16)}
    return fastest("products of rows", paths) == str(torch.bfloat16)


def _product(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    rows, queries = torch.ones(1024, 384, dtype=dtype), torch.ones(384, 128, dtype=dtype)
    return lambda: rows @ queries
