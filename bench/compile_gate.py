"""Compile every kernel for GPUs that need not be here, and read what each one takes.

    python -m bench.compile_gate [--op assign ...] [--target sm_90 ...]

Each launcher runs on tensors without memory (the samples of its op, and the sizes of `production`) under a
driver that names a GPU and has none: triton specialises and compiles just what a launch there would, and
nothing is launched. A new op is picked up by itself. The exit status is 1 when a kernel does not compile,
keeps values on the stack, or asks for more shared memory than the GPU has.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import multiprocessing
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from gpuzip.ops import OPS


@dataclass(frozen=True)
class Target:
    """A GPU to compile for, and the shared memory that one program may have there, in bytes."""

    gpu: GPUTarget
    shared: int


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 163 * 1024),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 227 * 1024),
    "sm_100": Target(GPUTarget("cuda", 100, 32), 227 * 1024),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 64 * 1024),
}


@dataclass(frozen=True)
class Row:
    """One kernel at one specialisation on one target; None where nothing could be read."""

    kernel: str
    target: str
    registers: int | None = None
    stack: int | None = None  # bytes a thread
    shared: int | None = None  # bytes a program
    instructions: int | None = None
    problem: str = ""


@dataclass
class _Driver:
    """What triton asks its active driver before it compiles; the name keeps the targets' caches apart."""

    device: str
    target: GPUTarget

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        return self.device

    def get_current_stream(self, device: str) -> int:
        return 0


@dataclass
class _Recorder:
    """Stands in for JITFunction.run: compiles each distinct specialisation once and keeps a row of it."""

    name: str
    target: Target
    rows: dict[str, Row] = field(default_factory=dict)

    def compile(self, run: Any, function: Any, *args: Any, **kwargs: Any) -> None:
        label = _label(function, args, kwargs)
        try:
            kernel = run(function, *args, **{**kwargs, "warmup": True})
        except Exception as error:  # whatever the compiler raised becomes a row, and the others still run
            lines = f"{type(error).__name__}: {error}".strip().splitlines()
            problem = " ... ".join(dict.fromkeys((lines[0], lines[-1])))[:160]
            self.rows.setdefault(label + problem, Row(label, self.name, problem=problem))
            return
        if kernel.hash not in self.rows:
            self.rows[kernel.hash] = _read(label, self.name, self.target, kernel)


def _label(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """`_decode uint8,float32,float32 D%16 BN=8`: the tensors' dtypes, then what is known of the rest."""
    values = dict(zip(function.arg_names, args, strict=False)) | kwargs
    dtypes, facts = [], []
    for param in function.params:
        value = values[param.name]
        if isinstance(value, Tensor):
            dtypes.append(str(value.dtype).removeprefix("torch."))
        elif param.is_constexpr or value is None:
            facts.append(f"{param.name}={value}")
        elif value >= 2**31:
            facts.append(f"{param.name}:i64")
        elif not param.do_not_specialize and (value == 1 or value % 16 == 0):
            facts.append(f"{param.name}=1" if value == 1 else f"{param.name}%16")
    return " ".join([function.__name__, ",".join(dtypes), *facts])


def _read(label: str, name: str, target: Target, kernel: Any) -> Row:
    """The row of a compiled kernel, with the first thing that is wrong with it."""
    shared = kernel.metadata.shared
    problem = f"{shared} bytes of shared memory, {target.shared} exist" if shared > target.shared else ""
    try:
        registers, stack, instructions = (_read_amd if target.gpu.backend == "hip" else _read_nvidia)(kernel)
    except (RuntimeError, OSError) as error:  # no cuobjdump
        return Row(label, name, shared=shared, problem=problem or f"not read: {error}")
    return Row(label, name, registers, stack, shared, instructions, problem or ("spills" if stack else ""))


def _read_nvidia(kernel: Any) -> tuple[int, int, int]:
    """Registers and stack bytes, by cuobjdump; instructions, by the size of the code."""
    cubin = kernel.asm["cubin"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if not found:
        raise RuntimeError("cuobjdump names no registers")
    return int(found[1]), int(found[2]), _code_bytes(cubin) // 16


def _code_bytes(elf: bytes) -> int:
    """The size of the executable sections of a 64-bit ELF file: sh_size where sh_flags has SHF_EXECINSTR."""
    (start,) = struct.unpack_from("<Q", elf, 0x28)
    size, count = struct.unpack_from("<2H", elf, 0x3A)
    sections = [struct.unpack_from("<2I4Q", elf, start + i * size) for i in range(count)]
    return sum(section[5] for section in sections if section[2] & 4)


def _read_amd(kernel: Any) -> tuple[int, int, int]:
    """Vector registers, scratch bytes and instructions, from the assembly."""
    text = kernel.asm["amdgcn"]
    registers = re.search(r"\.vgpr_count:\s*(\d+)", text)
    scratch = re.search(r"\.private_segment_fixed_size:\s*(\d+)", text)
    if not (registers and scratch):
        raise RuntimeError("the assembly names no registers")
    instructions = len(re.findall(r"^\s+(?:[vs]_|ds_|global_|flat_|buffer_|scratch_)\w+", text, re.MULTILINE))
    return int(registers[1]), int(scratch[1]), instructions


def _without_memory(value: Any) -> Any:
    """A tensor of the same shape and strides on the meta device; anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def production(op: str) -> Iterator[tuple[Any, ...]]:
    """Arguments of sizes in use, too large to be samples, with row counts past 2**31 among them."""

    def t(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    N, huge, u8 = 1_000_000, 2**32, torch.uint8
    if op == "assign":
        for exact in (False, True):
            yield t(N, 384), t(48, 256, 8), exact
            yield t(huge, 384), t(96, 16, 4), exact
            yield t(N, 384, dtype=torch.float16), t(96, 256, 4), exact
            for S, K in ((8, 65536), (16, 256), (32, 256), (64, 65536), (64, 256)):
                yield t(N, 1024), t(1024 // S, K, S), exact
        yield t(N, 1024, dtype=torch.float16), t(1, 65536, 1024), False
    elif op == "encode":
        yield t(huge, 384), t(96, 16, 4), False
        for K, S in ((2, 8), (4, 8), (16, 8), (16, 16), (16, 64)):
            yield t(N, 384, dtype=torch.bfloat16), t(384 // S, K, S), False
    elif op == "centroid_sums":
        yield t(N, 384), t(N, 48, dtype=u8), 256
        yield t(huge, 384), t(huge, 96, dtype=u8), 16
        yield t(N, 1024), t(N, 1, dtype=torch.int32), 65536
    elif op == "kmeans_step":
        for K, S in (
            (256, 8),
            (256, 4),
            (16, 4),
            (16, 8),
            (16, 16),
            (64, 16),
            (128, 16),
            (64, 32),
            (1024, 8),
        ):
            yield t(65536, 384), t(384 // S, K, S)
        yield t(huge, 384), t(96, 16, 4)
    elif op == "lloyd":
        for S in (4, 8, 16):
            yield t(4096, 384), t(384 // S, 16, S), 25, 1234
    elif op == "centroid_update":
        yield t(48, 256, 8), t(48, 256, dtype=torch.int32), 1234
        yield t(1, 65536, 1024), t(1, 65536, dtype=torch.int32), 1234
    elif op == "pack_bits":
        yield t(huge, 96, dtype=u8), 4
        yield t(N, 1024, dtype=torch.int32), 10
    elif op == "unpack_bits":
        yield t(huge, 48, dtype=u8), 96, 4
        yield t(N, 1280, dtype=u8), 1024, 10
    elif op == "decode":
        yield t(N, 48, dtype=u8), t(48, 256, 8)
        yield t(huge, 48, dtype=u8), t(96, 16, 4, dtype=torch.float16)
    elif op == "adc_scan":
        for Q, group in ((1, 1024), (64, 32), (64, 1)):
            yield t(N, 48, dtype=u8), t(Q, 48, 256), t(N), group
        yield t(huge, 48, dtype=u8), t(1000, 96, 16), None, 1024
    elif op == "adc_gather":
        yield t(huge, 48, dtype=u8), t(64, 48, 256), t(huge), t(64, 3200, dtype=torch.int64)
    elif op == "topk":
        for columns, k in ((10_000, 10), (N // 10, 10), (N, 100), (N, 10), (100 * N, 10), (huge // 2, 100)):
            yield t(2, columns), k


@contextmanager
def _compiling_for(recorder: _Recorder) -> Iterator[None]:
    """Launches inside compile for the target of the recorder, and do not run."""
    run = JITFunction.run

    def compile_only(function: Any, *args: Any, **kwargs: Any) -> None:
        recorder.compile(run, function, *args, **kwargs)

    absent = _Driver(recorder.name, recorder.target.gpu)
    with mock.patch.object(driver, "_active", absent), mock.patch.object(JITFunction, "run", compile_only):
        yield


def compile_for(name: str, ops: Iterable[str] = ()) -> list[Row]:
    """A row for each specialisation of each kernel that `ops` (all, when empty) launch on a target."""
    recorder = _Recorder(name, TARGETS[name])
    with _compiling_for(recorder):
        for op in map(OPS.__getitem__, ops or OPS):
            module, _, launcher = op.kernel.partition(":")
            launch = getattr(importlib.import_module(module), launcher)
            for args in [*op.samples("cpu"), *production(op.name)]:
                launch(*map(_without_memory, args))
    return list(recorder.rows.values())


def table(rows: list[Row]) -> str:
    """The rows as aligned text, a kernel's targets together."""
    heads = ["kernel", "target", "registers", "stack", "shared", "instructions", "status"]
    lines = [heads]
    for row in sorted(rows, key=lambda row: (row.kernel, list(TARGETS).index(row.target))):
        numbers = (row.registers, row.stack, row.shared, row.instructions)
        cells = ["-" if n is None else str(n) for n in numbers]
        lines.append([row.kernel, row.target, *cells, row.problem or "ok"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    form = "  ".join(f"{{:{'<' if i in (0, 1, 6) else '>'}{width}}}" for i, width in enumerate(widths))
    return "\n".join(form.format(*line).rstrip() for line in lines)


def main() -> int:
    summary = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m bench.compile_gate", description=summary)
    parser.add_argument("--op", nargs="+", choices=sorted(OPS), default=(), help="only these ops")
    parser.add_argument("--target", nargs="+", choices=list(TARGETS), default=(), help="only these targets")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, len(TARGETS)), help="processes")
    chosen = parser.parse_args()
    if triton.knobs.runtime.interpret:
        parser.error("TRITON_INTERPRET is set, and the interpreter compiles nothing. Unset it.")
    start = time.perf_counter()
    with ProcessPoolExecutor(chosen.jobs, multiprocessing.get_context("spawn")) as pool:
        found = pool.map(functools.partial(compile_for, ops=chosen.op), chosen.target or TARGETS)
        rows = [row for rows in found for row in rows]
    print(table(rows))
    bad = [row for row in rows if row.problem]
    seconds = time.perf_counter() - start
    print(f"triton {triton.__version__}: {len(rows)} kernels, {len(bad)} with a problem, {seconds:.0f} s")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
