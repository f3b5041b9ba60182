"""Where searches run by loops: on which tensors, and with which instructions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gpuzip._core.device import is_gpu
from gpuzip._core.few import is_plain
from gpuzip.ops._dispatch import loops_are_used, loops_of

_MOST_ROWS = 1 << 32  # a key holds the number of a row in 32 bits


def numpy_may_search(like: Tensor, N: int, k: int) -> bool:
    """Whether numpy searches instead of loops: on a CPU where these do not run."""
    return not loops_are_used() and is_plain(like) and 0 < k <= N


def may_search(like: Tensor, N: int, k: int) -> bool:
    """Whether loops may run: never for the fake tensors of a trace, nor for what they cannot count."""
    here = type(like) is Tensor and not is_gpu(like.device) and loops_are_used()
    return here and 0 < k <= N < _MOST_ROWS and like.shape[0] > 0


def loops_of_registers(name: str) -> Any:
    """Return a module of loops, or None without AVX2, where LLVM ends the process instead of compiling it."""
    return loops_of(name) if loops_of("_vectors256").is_here() else None


def has_registers() -> bool:
    """Whether the loops that search in one pass by instructions of AVX2 run here."""
    return loops_are_used() and loops_of_registers("adc_topk") is not None
