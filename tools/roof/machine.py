"""What a roofline runs on: the GPU at hand, or none, for a rehearsal that times nothing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import torch

from gpuzip.ops import OPS
from tools.roof.cases import Arguments, Case, Task, bound
from tools.roof.floors import Roofs
from tools.roof.timing import Time, measure_roofs, time_op, time_task


class Machine(Protocol):
    """Where cases run. device: of tensors. rows: of the scans, by default; few: of those that are judged."""

    device: str
    rows: int
    few: int

    def roofs(self) -> Roofs: ...

    def fits(self, count: float) -> bool:
        """Whether so many bytes are free."""

    def time(self, case: Case, launch: Callable[..., Any] | None = None) -> Time:
        """The time of an operator, or of `launch` in its place."""

    def time_task(self, task: Task) -> Time: ...

    def answer(self, op: str, arguments: Arguments, launch: Callable[..., Any] | None = None) -> Any:
        """What an operator gives, or None where nothing runs."""


class Gpu:
    device = "cuda"
    few = 5_003  # no tile divides them

    def __init__(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = False
        memory = torch.cuda.mem_get_info()[0]
        self.rows = 10**8 if memory >= 3e10 else 10**7 if memory >= 6e9 else 10**6

    def roofs(self) -> Roofs:
        return measure_roofs()

    def fits(self, count: float) -> bool:
        torch.cuda.empty_cache()
        return count < torch.cuda.mem_get_info()[0]

    def time(self, case: Case, launch: Callable[..., Any] | None = None) -> Time:
        op = OPS[case.op]
        return time_op(launch or op.call, bound(op, case.make("cuda")))

    def time_task(self, task: Task) -> Time:
        return time_task(task.make("cuda"))

    def answer(self, op: str, arguments: Arguments, launch: Callable[..., Any] | None = None) -> Any:
        return (launch or OPS[op].call)(*bound(OPS[op], arguments))


class Rehearsal:
    """No GPU: kernels compile for sm_90 without one, small cases run on the CPU, and times are NaN."""

    device = "cpu"
    rows = 10**8
    few = 67
    _nothing = Time(float("nan"), float("nan"), 0, "rehearsal", 1.755e9)

    def roofs(self) -> Roofs:
        return Roofs(copy=4.3e12, half=790e12, int8=1.58e15, sms=132, clock=1.755e9)

    def fits(self, count: float) -> bool:
        return True

    def time(self, case: Case, launch: Callable[..., Any] | None = None) -> Time:
        from tools.gate.build import build

        op = OPS[case.op]
        module, _, name = op.kernel.partition(":")
        launch = launch or getattr(importlib.import_module(module), name)
        arguments = tuple(bound(op, case.make("meta")))
        problems = [b.row for b in build("sm_90", name, launch, [arguments]) if not b.code]
        if problems:
            raise RuntimeError("; ".join(map(str, problems)))
        return self._nothing

    def time_task(self, task: Task) -> Time:
        return self._nothing

    def answer(self, op: str, arguments: Arguments, launch: Callable[..., Any] | None = None) -> Any:
        return OPS[op].call(*bound(OPS[op], arguments))
