"""Run launchers where no GPU is: triton specialises and compiles what they would launch there."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from triton.runtime import driver
from triton.runtime.errors import OutOfResources
from triton.runtime.jit import JITFunction

from tools.gate import layouts, machine_code
from tools.gate.rows import TARGETS, Row

_TENSOR_MEMORY = 512  # columns that sm_100 has


@dataclass(frozen=True)
class Built:
    """A row that waits for its instructions to be counted; code is empty where nothing compiled.

    layouts: what `layouts.repeated` says of the compiler's intermediate form.
    """

    row: Row
    code: bytes = b""
    layouts: str = ""


@dataclass(frozen=True)
class Launch:
    """What a launcher would launch. values: of the kernel's parameters by name; programs: of the grid."""

    row: Row
    code: bytes
    values: dict[str, Any]
    programs: int


def _driver(target: str) -> SimpleNamespace:
    """What triton asks its active driver before it compiles; the name keeps the targets' caches apart."""
    return SimpleNamespace(
        get_current_target=lambda: TARGETS[target].gpu,
        get_current_device=lambda: target,
        get_current_stream=lambda device: 0,
    )


@dataclass
class _Recorder:
    """Stands in for JITFunction.run: compiles each distinct specialisation once and keeps it.

    failed: what did not compile in this launch, by label. The error goes on to the launcher, which may
    have a simpler form to fall back to. forms: what became of each form.
    """

    name: str
    built: dict[str, Built] = field(default_factory=dict)
    failed: dict[str, Row] = field(default_factory=dict)
    forms: dict[tuple[str, str, str], Exception | None] = field(default_factory=dict)

    def compile(self, apart: bool, run: Any, function: Any, *args: Any, **kwargs: Any) -> None:
        """apart: whether sizes that are other multiples of 16 make another form."""
        row = _row(self.name, function, args, kwargs)
        form = (row.kernel, row.tile, _without_multiples(row.arguments))
        if form in self.forms and not apart:
            if (known := self.forms[form]) is not None:
                self.failed[str(row)] = replace(row, fallback=words(known))
                raise known
            return
        self.forms[form] = None
        try:
            kernel = run(function, *args, **{**kwargs, "warmup": True})
            _fit(self.name, kernel)
        except Exception as error:
            self.forms[form] = error
            self.failed[str(row)] = replace(row, fallback=words(error))
            raise
        if kernel.hash not in self.built:
            self.built[kernel.hash] = _read(row, kernel)

    def end_launch(self, launcher: str, error: Exception | None) -> None:
        """Failures of a launch that ended well are fallbacks; others are problems."""
        if error is not None and not self.failed:
            self._keep(Row(launcher, self.name, problem=f"the launcher fails: {words(error)}"))
        last = len(self.failed) - 1
        for i, row in enumerate(self.failed.values()):
            uncaught = error is not None and i == last
            self._keep(replace(row, fallback="", problem=row.fallback) if uncaught else row)
        self.failed.clear()

    def _keep(self, row: Row) -> None:
        self.built.setdefault(str(row), Built(row))


def _row(target: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Row:
    """`uint8,float32,float32 D%16` are the arguments, `NBITS=8 BN=8 BD=128 warps=4` is the tile."""
    dtypes, facts, tile = [], [], []
    for param, value in _values(function, args, kwargs):
        if isinstance(value, Tensor):
            dtypes.append(str(value.dtype).removeprefix("torch."))
        elif param.is_constexpr:
            tile.append(f"{param.name}={value}")
        elif value is None or isinstance(value, bool | float):
            facts.append(f"{param.name}={value}")
        elif value >= 2**31:
            facts.append(f"{param.name}:i64")
        elif not param.do_not_specialize and (value == 1 or value % 16 == 0):
            facts.append(f"{param.name}=1" if value == 1 else f"{param.name}%16")
    tile += [f"{name[4:]}={kwargs[name]}" for name in ("num_warps", "num_stages") if name in kwargs]
    return Row(function.__name__, target, " ".join([",".join(dtypes), *facts]), " ".join(tile))


def _values(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """The parameters of a kernel and what a launch gives them."""
    values = dict(zip(function.arg_names, args, strict=False)) | kwargs
    return ((param, values.get(param.name, param.default)) for param in function.params)


def _without_multiples(arguments: str) -> str:
    return " ".join(fact for fact in arguments.split() if not fact.endswith(("%16", "=1")))


def _fit(target: str, kernel: Any) -> None:
    """Raise what a launch there would, where the kernel asks for more than the GPU has."""
    needs = kernel.metadata
    if needs.shared > TARGETS[target].shared:
        raise OutOfResources(needs.shared, TARGETS[target].shared, "shared memory")
    if (getattr(needs, "tmem_size", None) or 0) > _TENSOR_MEMORY:
        raise OutOfResources(needs.tmem_size, _TENSOR_MEMORY, "tensor memory")


def _read(row: Row, kernel: Any) -> Built:
    row = replace(row, shared=kernel.metadata.shared)
    try:
        registers, stack, code = machine_code.usage(TARGETS[row.target], kernel)
    except (RuntimeError, OSError) as error:  # no cuobjdump
        return Built(replace(row, problem=f"not read: {error}"))
    ttgir = kernel.asm.get("ttgir", "") if row.target == "sm_90" else ""
    return Built(replace(row, registers=registers, stack=stack), code, layouts.repeated(ttgir))


def words(error: Exception) -> str:
    """First and last line of an error, without the paths and addresses that differ between machines."""
    lines = f"{type(error).__name__}: {error}".strip().splitlines()
    text = " ... ".join(dict.fromkeys((lines[0].strip(), lines[-1].strip())))
    return re.sub(r"0x[0-9a-f]{6,}", "0x..", re.sub(r"(/[\w.+-]+){2,}", "..", text))[:160]


def _without_memory(value: Any) -> Any:
    """A tensor of the same shape and strides on the meta device; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


@contextmanager
def _compiling_for(target: str, compile: Callable[..., None]) -> Iterator[None]:
    """Launches inside go to `compile`, behind the function that runs them; fallbacks say nothing."""
    run = JITFunction.run

    def compile_only(function: Any, *args: Any, **kwargs: Any) -> None:
        compile(run, function, *args, **kwargs)

    with (
        mock.patch.object(driver, "_active", _driver(target)),
        mock.patch.object(JITFunction, "run", compile_only),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "gpuzip: the kernel .* does not compile")
        yield


def build(
    target: str,
    launch: Callable[..., Any],
    once: Iterable[Sequence[Any]],
    apart: Iterable[Sequence[Any]] = (),
) -> list[Built]:
    """What the launcher compiles on a target. No launch knows of another's fallbacks.

    once: arguments for which each kernel is compiled once for each tile, dtypes of its tensors and width of
    its sizes. apart: those for which it is also compiled for each way in which sizes are multiples of 16, or
    1.
    """
    from gpuzip.kernels._launch import FALLEN

    recorder = _Recorder(target)
    for is_apart, arguments in ((True, apart), (False, once)):
        with _compiling_for(target, partial(recorder.compile, is_apart)):
            for args in arguments:
                FALLEN.clear()
                error = None
                try:
                    launch(*map(_without_memory, args))
                except Exception as raised:  # it becomes a row, and the other launches still run
                    error = raised
                recorder.end_launch(getattr(launch, "__name__", "a launcher"), error)
    return list(recorder.built.values())


def launches(target: str, launch: Callable[..., Any], args: Iterable[Any]) -> list[Launch]:
    """What the launcher would launch there for these arguments, in order."""
    from gpuzip.kernels._launch import FALLEN

    found: list[Launch] = []
    read: dict[str, Built] = {}

    def note(run: Any, function: Any, *args: Any, **kwargs: Any) -> None:
        kernel = run(function, *args, **{**kwargs, "warmup": True})
        _fit(target, kernel)
        if kernel.hash not in read:
            read[kernel.hash] = _read(_row(target, function, args, kwargs), kernel)
        built = read[kernel.hash]
        values = {param.name: value for param, value in _values(function, args, kwargs)}
        values["warps"] = kernel.metadata.num_warps
        found.append(Launch(built.row, built.code, values, math.prod(kwargs["grid"])))

    FALLEN.clear()
    with _compiling_for(target, note):
        launch(*map(_without_memory, args))
    return found
