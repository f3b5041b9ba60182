"""One call turns a reference, a shape rule and a kernel into a torch operator."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from gpuzip.errors import MissingDependencyError

Agreement = Literal["exact", "nearest", "close"]

_LIB = torch.library.Library("gpuzip", "DEF")


@dataclass(frozen=True)
class Op:
    """A gpuzip operator: `reference` is the truth, `cpu` and `kernel` are faster roads to it.

    agreement: how a faster road may differ from the reference. "exact": not at all. "nearest":
    an index may name another entry that is as near, within 1e-5 of the distances involved.
    "close": float32 rounding, because sums run in another order.
    samples: yields argument tuples on a device; tests, the compile gate and benches use them.
    """

    name: str
    reference: Callable[..., Any]
    cpu: Callable[..., Any]
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
) -> Callable[..., Any]:
    """Register `gpuzip::<schema>`: the CPU runs `cpu` or `reference`, CUDA runs `<module>:<launcher>`."""
    name = schema.partition("(")[0]
    module, _, launcher = kernel.partition(":")

    def cuda(*args: Any) -> Any:  # imported on the first CUDA call, so that the CPU needs no triton
        try:
            launch = getattr(importlib.import_module(module), launcher)
        except ModuleNotFoundError as error:
            if error.name != "triton":
                raise
            raise MissingDependencyError(
                f"{name}: the tensors are on a GPU and triton is not installed. "
                "pip install triton, or move the tensors to the CPU."
            ) from error
        with torch.cuda.device(args[0].device):  # triton launches on the current device
            return launch(*args)

    _LIB.define(schema)
    _LIB.impl(name, cpu or reference, "CPU")
    _LIB.impl(name, cuda, "CUDA")
    torch.library.register_fake(f"gpuzip::{name}", shapes, lib=_LIB)
    call: Callable[..., Any] = getattr(torch.ops.gpuzip, name).default
    OPS[name] = Op(name, reference, cpu or reference, kernel, samples, agreement, call)
    return call
