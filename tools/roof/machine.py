"""What a roofline runs on: the GPU at hand, or none, for a rehearsal that times nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gpuzip.ops import OPS, Op
from tools.roof.cases import Arguments, Case, Task, bound, launcher
from tools.roof.floors import H200, Roofs
from tools.roof.timing import Time, measure_roofs, time_op, time_task


class Machine:
    """The GPU at hand. device: of tensors. rows: of the scans, by default; few: of those that are judged."""

    device = "cuda"
    few = 5_003  # no tile divides them

    def __init__(self) -> None:
        torch.backends.cuda.matmul.allow_tf32 = False
        memory = torch.cuda.mem_get_info()[0]
        self.rows = 10**8 if memory >= 3e10 else 10**7 if memory >= 6e9 else 10**6

    def roofs(self) -> Roofs:
        return measure_roofs()

    def fits(self, count: float) -> bool:
        """Whether so many bytes are free."""
        torch.cuda.empty_cache()
        return count < torch.cuda.mem_get_info()[0]

    def time(self, case: Case, launch: Callable[..., Any] | None = None) -> Time:
        """The time of an operator, or of `launch` in its place."""
        return time_op(launch or OPS[case.op].call, bound(OPS[case.op], case.make("cuda")))

    def time_task(self, task: Task) -> Time:
        return time_task(task.make("cuda"))

    def answer(self, op: str, arguments: Arguments) -> Any:
        """What an operator gives."""
        return OPS[op].call(*bound(OPS[op], arguments))

    def judged(self, case: Case) -> str:
        """`right`, or `WRONG` and how: a case of few rows, run here and by the reference."""
        op, arguments = OPS[case.op], case.make(self.device)
        got, want = self.answer(case.op, arguments), op.reference(*bound(op, arguments))
        fault = difference(op, bound(op, arguments), got, want)
        return f"WRONG {fault}" if fault else "right"


class Rehearsal(Machine):
    """No GPU: kernels compile for sm_90 without one, small cases run on the CPU, and times are NaN."""

    device = "cpu"
    few = 67
    _nothing = Time(float("nan"), float("nan"), 0, "rehearsal", 1.755e9)

    def __init__(self) -> None:
        self.rows = 10**8

    def roofs(self) -> Roofs:
        return H200

    def fits(self, count: float) -> bool:
        return True

    def time(self, case: Case, launch: Callable[..., Any] | None = None) -> Time:
        if problem := compiled(case, "sm_90", launch):
            raise RuntimeError(problem)
        return self._nothing

    def time_task(self, task: Task) -> Time:
        return self._nothing


def compiled(case: Case, target: str, launch: Callable[..., Any] | None = None) -> str:
    """Compile what a case launches on a target of the gate; what went wrong, or nothing."""
    from tools.gate.build import build

    arguments = tuple(bound(OPS[case.op], case.make("meta")))
    built = build(target, launch or launcher(case.op), [arguments])
    return "; ".join(str(b.row) for b in built if not b.code)


def is_broken() -> bool:
    """Whether nothing runs any more on the GPU in this process, as after an illegal access."""
    if not torch.cuda.is_available():
        return False
    try:
        torch.zeros(1, device="cuda").item()
    except RuntimeError:
        return True
    return False


def difference(op: Op, arguments: list[Any], got: Any, want: Any) -> str:
    """Describe how `got` differs from the reference beyond the operator's agreement; empty if it does not."""
    try:
        for a, b in zip(tensors(got), tensors(want), strict=True):
            if op.agreement == "nearest":
                _check_nearest(op, arguments, a, b)
            else:
                exact = 0.0 if op.agreement == "exact" or not a.dtype.is_floating_point else None
                torch.testing.assert_close(a, b, rtol=exact, atol=exact)
    except AssertionError as error:
        return " ".join(str(error).split())[:120]
    return ""


def tensors(result: Any) -> list[Tensor]:
    """The results of an operator, one or several, as a list."""
    return list(result) if isinstance(result, tuple | list) else [result]


def _check_nearest(op: Op, arguments: list[Any], got: Tensor, want: Tensor) -> None:
    """Codes may name another centroid that is as near, within 1e-5 of the distances involved."""
    x, centroids = arguments[0].double(), arguments[1].double()
    M, K, S = centroids.shape
    if op.name == "encode":
        got, want = (OPS["unpack_bits"].reference(packed, M, K.bit_length() - 1) for packed in (got, want))
    sub, every = x.view(-1, M, S), torch.arange(M, device=x.device)
    chosen, nearest = ((sub - centroids[every, codes.long()]).square().sum(-1) for codes in (got, want))
    farther = ((chosen - nearest) / (nearest + sub.square().sum(-1)).clamp(min=1e-30)).max()
    assert float(farther) <= 1e-5, f"a code is {float(farther):.1e} farther than the nearest"
