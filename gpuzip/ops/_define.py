"""Defines a torch operator from a reference, a shape rule and a kernel."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from gpuzip._core.derivatives import is_differentiated
from gpuzip.errors import MissingDependencyError
from gpuzip.ops._dispatch import loops_or

Agreement = Literal["exact", "nearest", "close"]

_LIB = torch.library.Library("gpuzip", "DEF")


@dataclass(frozen=True)
class Op:
    """A gpuzip operator. `reference` defines the result; `cpu`, `loops` and `kernel` are faster paths.

    cpu: plain torch and numpy. loops: "<module>:<function>" compiled by numba, which replaces `cpu` if numba
    is installed, or None. kernel: "<module>:<launcher>" in Triton.

    agreement: how a faster path may differ from the reference. "exact": not at all. "nearest": an index may
    name another entry that is equally near, within 1e-5 of the distances. "close": by float32 rounding,
    because sums run in another order. samples: yields argument tuples on a device, for tests, the compile
    gate and benches.
    """

    name: str
    reference: Callable[..., Any]
    cpu: Callable[..., Any]
    loops: str | None
    kernel: str
    samples: Callable[[str], Iterator[tuple[Any, ...]]]
    agreement: Agreement
    call: Callable[..., Any]


OPS: dict[str, Op] = {}


def define_op(
    schema: str,
    *,
    reference: Callable[..., Any],
    shapes: Callable[..., Any],
    kernel: str,
    samples: Callable[[str], Iterator[tuple[Any, ...]]],
    agreement: Agreement,
    cpu: Callable[..., Any] | None = None,
    loops: str | None = None,
) -> Callable[..., Any]:
    """Register `gpuzip::<schema>`: the CPU runs `loops`, `cpu` or `reference`, CUDA runs `kernel`.

    Operators have no derivatives: they raise where torch would take one of 0.
    """
    name = schema.partition("(")[0]
    module, _, launcher = kernel.partition(":")

    def cuda(*args: Any) -> Any:  # imports on the first CUDA call, so that CPUs need no triton
        try:
            launch = getattr(importlib.import_module(module), launcher)
        except ModuleNotFoundError as error:
            if error.name != "triton":
                raise
            raise MissingDependencyError(
                f"{name}: tensors on a GPU need triton, which is not installed. "
                "Run pip install triton, or move the tensors to the CPU."
            ) from error
        with torch.cuda.device(args[0].device):  # triton launches on the current device
            return launch(*args)

    _LIB.define(schema)
    plain = cpu or reference
    _LIB.impl(name, plain if loops is None else loops_or(plain, loops, agreement == "exact"), "CPU")
    _LIB.impl(name, cuda, "CUDA")
    torch.library.register_fake(f"gpuzip::{name}", shapes, lib=_LIB)
    call: Callable[..., Any] = getattr(torch.ops.gpuzip, name).default
    _LIB.impl(name, _without_derivative(name, call), "Autograd")
    OPS[name] = Op(name, reference, plain, loops, kernel, samples, agreement, call)
    return call


def _without_derivative(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return the operator for differentiated arguments: whole numbers are constants, floats an error."""

    def run(*args: Any) -> Any:
        wanted = [is_differentiated(arg) for arg in args]
        with torch._C._AutoDispatchBelowAutograd():
            if not any(wanted):
                return call(*args)
            result = call(*(arg.detach() if one else arg for arg, one in zip(args, wanted, strict=True)))
        if not any(out.is_floating_point() for out in (result if isinstance(result, tuple) else (result,))):
            return result
        raise NotImplementedError(
            f"gpuzip::{name}: the operator must not be differentiated; it has no derivative. Detach its "
            "arguments, or train through QuantizedEmbedding(trainable=...)."
        )

    return run
