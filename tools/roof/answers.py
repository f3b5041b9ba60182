"""Is what an operator gives right? Against its reference, as far as the operator may differ from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gpuzip.ops import OPS, Op
from tools.roof.cases import Case, bound
from tools.roof.machine import Machine


def judged(case: Case, machine: Machine) -> str:
    """`right`, or `WRONG` and how: a case of few rows, run on the machine and by the reference."""
    op, arguments = OPS[case.op], case.make(machine.device)
    got, want = machine.answer(case.op, arguments), op.reference(*bound(op, arguments))
    fault = difference(op, bound(op, arguments), got, want)
    return f"WRONG {fault}" if fault else "right"


def difference(op: Op, arguments: list[Any], got: Any, want: Any) -> str:
    """What is wrong with `got`; nothing where it agrees as the operator states it."""
    try:
        for a, b in zip(_outputs(got), _outputs(want), strict=True):
            if op.agreement == "nearest":
                _check_nearest(op, arguments, a, b)
            else:
                exact = 0.0 if op.agreement == "exact" or not a.dtype.is_floating_point else None
                torch.testing.assert_close(a, b, rtol=exact, atol=exact)
    except AssertionError as error:
        return " ".join(str(error).split())[:120]
    return ""


def _outputs(result: Any) -> list[Tensor]:
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
