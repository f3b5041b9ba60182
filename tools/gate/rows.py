"""The GPUs that the gate compiles for, and what it says of one kernel on one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from triton.backends.compiler import GPUTarget


@dataclass(frozen=True)
class Target:
    """shared: bytes of shared memory that one program may have. sass: the name that nvdisasm has for it."""

    gpu: GPUTarget
    shared: int
    sass: str = ""


TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 163 * 1024, "SM80"),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 227 * 1024, "SM90a"),
    "sm_100": Target(GPUTarget("cuda", 100, 32), 227 * 1024, "SM100a"),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 64 * 1024),
}


@dataclass(frozen=True)
class Row:
    """One kernel at one specialisation on one target; None where nothing could be read.

    arguments: dtypes of the tensors and what the compiler knows of the numbers. tile: what the launcher
    chose. counts: instructions of each class of `machine_code.CLASSES`. blocks: programs that a
    multiprocessor holds at a time. loop: the largest pipe of the largest loop, and the cycles that a program
    takes of it in one turn. fallback: why the launcher took the simpler form that it declares. problem: what
    fails the gate, empty where nothing does.
    """

    kernel: str
    target: str
    arguments: str = ""
    tile: str = ""
    registers: int | None = None
    stack: int | None = None  # bytes per thread
    shared: int | None = None  # bytes per program
    instructions: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    blocks: int | None = None
    loop: str = ""
    fallback: str = ""
    problem: str = ""

    @property
    def warps(self) -> int:
        found = re.search(r"\bwarps=(\d+)", self.tile)
        return int(found[1]) if found else 4

    @property
    def status(self) -> str:
        return self.problem or (f"falls back: {self.fallback}" if self.fallback else "ok")

    def __str__(self) -> str:
        where = " ".join(filter(None, (self.kernel, self.arguments, self.tile)))
        return f"{where} on {self.target}: {self.status}"
