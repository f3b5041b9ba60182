"""Every line of a launcher runs for some sample, and test_ops runs every sample in the interpreter.

Where no kernel for the matrix units compiles, the simple forms run, and answer as their references do.
"""

import importlib
import inspect
import sys
import types
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from gpuzip.ops import OPS
from tests.test_ops import check_agreement

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter stands in for a GPU")


class Everything(dict):
    """As if nothing had compiled."""

    asked = 0

    def __contains__(self, key: object) -> bool:
        self.asked += 1
        return True


def module_of(op):
    return importlib.import_module(op.kernel.partition(":")[0])


WITH_TWO_FORMS = [name for name, op in OPS.items() if "launch_or(" in inspect.getsource(module_of(op))]


@pytest.mark.parametrize("name", WITH_TWO_FORMS)
def test_the_simple_form_gives_the_same_answers(name, monkeypatch):
    op, fallen = OPS[name], Everything()
    monkeypatch.setattr(importlib.import_module("gpuzip.kernels._launch"), "FALLEN", fallen)
    launch = getattr(module_of(op), op.kernel.partition(":")[2])
    for args in op.samples("cpu"):
        check_agreement(op, args, launch(*args), op.reference(*args))
    assert fallen.asked or name in ("decode", "hamming_gather")  # they share a file with one that has two


class Nothing:
    """In place of a kernel: it is launched on tensors without memory."""

    def __getitem__(self, grid):
        return lambda *args, **kwargs: None


def launchers(module) -> Iterator[types.CodeType]:
    """The code of the module's plain functions, and of those inside them."""
    waiting = [f.__code__ for _, f in inspect.getmembers(module, inspect.isfunction)]
    while waiting:
        code = waiting.pop()
        if code.co_filename == module.__file__:
            yield code
            waiting += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]


def lines_of(code: types.CodeType) -> set[int]:
    return {line for *_, line in code.co_lines() if line is not None and line != code.co_firstlineno}


def lines_run(codes: set[types.CodeType], call) -> set[int]:
    """Lines of these codes that run during the call."""
    seen: set[int] = set()

    def line(frame, event, _):
        seen.add(frame.f_lineno)
        return line

    before = sys.gettrace()
    sys.settrace(lambda frame, event, _: line if frame.f_code in codes else None)
    try:
        call()
    finally:
        sys.settrace(before)
    return seen


@pytest.fixture
def no_kernel_runs(monkeypatch):
    for name in ("_halves", "_row_scan", *(module_of(op).__name__.rpartition(".")[2] for op in OPS.values())):
        module = importlib.import_module(f"gpuzip.kernels.{name}")
        for attribute, value in vars(module).items():
            if type(value).__name__ in ("InterpretedFunction", "JITFunction"):
                monkeypatch.setattr(module, attribute, Nothing())


FILES = sorted({op.kernel.partition(":")[0] for op in OPS.values()})
TARGETS = ["interpreter", "cuda 80", "cuda 90", "cuda 100", "hip gfx942"]


def launches_of(file: str) -> Iterator[tuple]:
    """Every launcher of a file with every sample, as tensors without memory."""
    for op in OPS.values():
        if op.kernel.partition(":")[0] == file:
            launch = getattr(importlib.import_module(file), op.kernel.partition(":")[2])
            for args in op.samples("cpu"):
                yield launch, [a.to("meta") if isinstance(a, Tensor) else a for a in args]


@pytest.mark.parametrize("file", FILES)
def test_samples_reach_every_line_of_the_launchers(file, no_kernel_runs, monkeypatch):
    """Those that choose a tile for one kind of GPU are asked in its name; tiles have tests of their own."""
    module, launches = importlib.import_module(file), list(launches_of(file))
    codes, run = set(launchers(module)), set()

    def all_samples():
        for launch, args in launches:
            launch(*args)

    for target in TARGETS:
        monkeypatch.setattr(module, "compile_target", lambda target=target: target, raising=False)
        run |= lines_run(codes, all_samples)
    monkeypatch.setattr(importlib.import_module("gpuzip.kernels._launch"), "FALLEN", Everything())
    run |= lines_run(codes, all_samples)
    source = inspect.getsource(module).splitlines()
    missed = sorted(set().union(*map(lines_of, codes)) - run)
    assert not missed, "\n".join(f"{line}: {source[line - 1].strip()}" for line in missed)
