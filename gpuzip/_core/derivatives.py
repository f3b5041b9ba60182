"""Whether torch is to differentiate through a tensor, backwards or forwards."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.forward_ad import unpack_dual


def is_differentiated(value: Any) -> bool:
    """Whether a value is a float tensor with a gradient to come, or with a tangent (torch.func.jvp)."""
    if not (isinstance(value, Tensor) and value.is_floating_point()):
        return False
    if value.requires_grad and torch.is_grad_enabled():
        return True
    return not torch.compiler.is_compiling() and unpack_dual(value).tangent is not None


def may_be_differentiated(tensor: Tensor) -> bool:
    """Whether `is_differentiated` may hold; in a tenth of its time."""
    return tensor.requires_grad or getattr(forward_ad, "_current_level", 0) >= 0
