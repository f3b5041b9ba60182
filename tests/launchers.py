"""What launchers do with arguments, seen without running a kernel: lines that run, and what is launched."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from gpuzip.ops import OPS, Op

#: Helpers of kernels that launch kernels of their own.
_SHARED = ("_halves", "_row_scan")


def module_of(op: Op) -> types.ModuleType:
    return importlib.import_module(op.kernel.partition(":")[0])


def launcher_of(op: Op) -> Callable[..., Any]:
    launcher: Callable[..., Any] = getattr(module_of(op), op.kernel.partition(":")[2])
    return launcher


class Everything(dict):
    """Says that every fast form has failed to compile; counts how often it was asked."""

    asked = 0

    def __contains__(self, key: object) -> bool:
        self.asked += 1
        return True


class _NotRun:
    """Stands in for a kernel: notes the grid and the compile-time constants, and runs nothing."""

    def __init__(self, name: str, seen: list[Launch]) -> None:
        self._name, self._seen = name, seen

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **constants: Any) -> None:
            size = grid(constants) if callable(grid) else grid
            self._seen.append(Launch(self._name, torch.Size(size).numel(), constants))

        return launch


class Launch:
    def __init__(self, kernel: str, programs: int, constants: dict[str, Any]) -> None:
        self.kernel, self.programs, self.constants = kernel, programs, constants


@contextmanager
def no_kernel_runs() -> Iterator[list[Launch]]:
    """Within the block kernels are not run; what would have been launched is listed."""
    seen: list[Launch] = []
    with ExitStack() as stack:
        for name in {*_SHARED, *(module_of(op).__name__.rpartition(".")[2] for op in OPS.values())}:
            module = importlib.import_module(f"gpuzip.kernels.{name}")
            for attribute, value in list(vars(module).items()):
                if type(value).__name__ in ("InterpretedFunction", "JITFunction"):
                    stack.enter_context(mock.patch.object(module, attribute, _NotRun(attribute, seen)))
        yield seen


def without_memory(args: tuple[Any, ...]) -> list[Any]:
    return [a.to("meta") if isinstance(a, Tensor) else a for a in args]


def launchers(module: types.ModuleType) -> Iterator[types.CodeType]:
    """The code of the module's plain functions, and of those inside them."""
    waiting = [f.__code__ for _, f in inspect.getmembers(module, inspect.isfunction)]
    while waiting:
        code = waiting.pop()
        if code.co_filename == module.__file__:
            yield code
            waiting += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]


def lines_of(code: types.CodeType) -> set[int]:
    return {line for *_, line in code.co_lines() if line is not None and line != code.co_firstlineno}


def lines_run(codes: set[types.CodeType], call: Callable[[], object]) -> set[int]:
    """Lines of these codes that run during the call."""
    seen: set[int] = set()

    def line(frame: types.FrameType, event: str, _: Any) -> Any:
        seen.add(frame.f_lineno)
        return line

    before = sys.gettrace()
    sys.settrace(lambda frame, event, _: line if frame.f_code in codes else None)
    try:
        call()
    finally:
        sys.settrace(before)
    return seen


def covering(op: Op, samples: list[tuple[Any, ...]]) -> list[int]:
    """Numbers of a few cheap samples that do all that all samples do.

    That is: every line of the launcher, every compile-time switch on and off, every compile-time size a
    power of two and not, every kernel as one program and as several, every dtype, every optional argument
    given and left out, every size of 0 and of 1.
    """
    done: list[set[Hashable]] = []
    costs: list[int] = []
    codes = set(launchers(module_of(op)))
    for args in samples:
        with no_kernel_runs() as seen:
            lines = lines_run(codes, partial(launcher_of(op), *without_memory(args)))
        done.append({*lines, *_constants(seen), *_kinds(args)})
        costs.append(sum(launch.programs for launch in seen))
    return _few(done, costs)


def _constants(seen: list[Launch]) -> Iterator[Hashable]:
    for launch in seen:
        yield launch.kernel, min(launch.programs, 2)
        for name, value in launch.constants.items():
            is_size = isinstance(value, int) and not isinstance(value, bool)
            yield launch.kernel, name, value & (value - 1) == 0 if is_size else str(value)


def _kinds(args: tuple[Any, ...]) -> Iterator[Hashable]:
    for place, value in enumerate(args):
        if isinstance(value, Tensor):
            yield place, value.dtype
            yield from ((place, axis, size) for axis, size in enumerate(value.shape) if size < 2)
        else:
            yield place, value is None


def _few(done: list[set[Hashable]], costs: list[int]) -> list[int]:
    """Greedily, the sample that adds most for its cost first."""
    chosen: list[int] = []
    left = set().union(*done)
    while left:
        best = max(range(len(done)), key=lambda i: len(done[i] & left) / (1 + costs[i]))
        chosen.append(best)
        left -= done[best]
    return sorted(chosen)
