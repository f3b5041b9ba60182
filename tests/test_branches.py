"""Every line of every kernel file runs on some sample, and the simple forms answer as their references do."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from gpuzip.ops import OPS, Op
from tests.test_ops import check_agreement

KERNELS = (Path(__file__).parents[1] / "kernels").resolve()
MODULES = sorted({op.kernel.partition(":")[0] for op in OPS.values()})

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter stands in for a GPU")


class Everything(dict):
    """As if no kernel for the matrix units compiled."""

    def __contains__(self, key: object) -> bool:
        return True


@contextmanager
def lines_run(path: Path) -> Iterator[set[int]]:
    """The numbers of the lines of a file that run within the block."""
    seen: set[int] = set()

    def in_file(frame: FrameType, event: str, arg: Any) -> Any:
        seen.add(frame.f_lineno)
        return in_file

    is_it: dict[str, bool] = {}  # by file name: most calls are elsewhere, and there are millions

    def at_call(frame: FrameType, event: str, arg: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in is_it:
            is_it[name] = Path(name).resolve() == path
        return in_file if is_it[name] else None

    before = sys.gettrace()
    sys.settrace(at_call)
    try:
        yield seen
    finally:
        sys.settrace(before)


def lines_of(code: CodeType) -> set[int]:
    """The lines of the functions in a module's code: not what runs when it is imported."""
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    lines = {line for function in inner for _, _, line in function.co_lines() if line} - {
        function.co_firstlineno for function in inner
    }
    return lines.union(*(lines_of(function) for function in inner))


def run(op: Op, args: tuple) -> None:
    module, _, launcher = op.kernel.partition(":")
    got = getattr(importlib.import_module(module), launcher)(*args)
    check_agreement(op, args, got, op.reference(*args))


@pytest.mark.parametrize("module", MODULES)
def test_every_line_runs_and_the_simple_forms_are_right(module, monkeypatch):
    ops = [op for op in OPS.values() if op.kernel.startswith(f"{module}:")]
    path = KERNELS / f"{module.rpartition('.')[2]}.py"
    with lines_run(path) as seen:
        for op in ops:
            for args in op.samples("cpu"):
                run(op, args)
        monkeypatch.setattr(importlib.import_module("gpuzip.kernels._launch"), "FALLEN", Everything())
        for op in ops:
            for args in op.samples("cpu"):
                run(op, args)
    text = path.read_text(encoding="utf-8")
    missed = lines_of(compile(text, str(path), "exec")) - seen
    assert not missed, "\n".join(f"{n}: {text.splitlines()[n - 1]}" for n in sorted(missed))
