"""What torch's settings make of a matrix product of float32."""

from __future__ import annotations

from typing import Any

import torch

from gpuzip.capture import is_gpu

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
