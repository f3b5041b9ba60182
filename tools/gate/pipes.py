"""What an instruction costs each pipe of a multiprocessor of an H100 or H200: cycles a warp.

Widths are those of NVIDIA's table of instruction throughputs for compute capability 9.0. The matrix units
have the rate that a large product reaches, and half of it where warps multiply on their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tools.gate.sass import Code
from tools.roof.floors import H200

L2 = 7e12  # bytes per second that reach the multiprocessors past their L1: an estimate, between 5.5 and 9
_SLICES = 80  # of the L2, each of which adds to one sector of 32 bytes a cycle: an estimate too

#: Lanes a cycle by how an opcode begins, the first that fits; `None`: by the bytes that it moves.
PIPES: list[tuple[str, str, int | None]] = [
    ("uniform", r"U(?!TMA|BLK)|R2UR|S2UR|VOTEU", None),
    ("ldg", r"LDG(?!STS)|STG|LD\b|ST\b|CCTL", 32),
    ("lds", r"LDSM?\b|STSM?\b|LDGSTS|ATOMS", 32),
    ("shfl", r"SHFL|REDUX", 32),
    ("f2f", r"F2F\.F64|F2F\.F32\.F64|[FI]2[FI]\.\S*F64", 16),
    ("mufu", r"MUFU|POPC|FLO|BREV|I2F|F2I|FRND|F2F\b|I2I", 16),
    ("fp64", r"D(ADD|MUL|FMA|SETP)", 64),
    ("fma", r"F(FMA|MUL|ADD)|HFMA2|HADD2|HMUL2", 128),
    ("fma", r"IMAD|IDP", 64),
    ("control", r"BRA|EXIT|BSSY|BSYNC|CALL|RET|LDC|NANOSLEEP|YIELD", None),
    ("control", r"BAR|DEPBAR|WARPSYNC|WARPGROUP|SYNCS|MEMBAR|ERRBAR", None),
    ("alu", r"", 64),
]  # fmt: skip
_PIPES = [(name, re.compile(pattern), lanes) for name, pattern, lanes in PIPES]
_SHAPE = re.compile(r"([HIQB])GMMA\.(\d+)x(\d+)x(\d+)")
_OF_A_WARP = {"16816": 16 * 8 * 16, "1688": 16 * 8 * 8, "16832": 16 * 8 * 32, "8816": 8 * 8 * 16}


def products(opcode: str) -> float:
    """Multiply-adds of one warp."""
    if shape := _SHAPE.match(opcode):
        return int(shape[2]) * int(shape[3]) * int(shape[4]) / 4
    found = re.match(r"[HI]MMA\.(\d+)", opcode)
    return _OF_A_WARP.get(found[1], 0) if found else 0


def width(opcode: str) -> int:
    """Bytes that a lane moves."""
    if opcode.startswith(("LDSM", "STSM")):
        return 4 * int(opcode.split(".")[3] if len(opcode.split(".")) > 3 else 1)
    sizes = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
    return next((sizes[part] for part in opcode.split(".") if part in sizes), 4)


def costs(opcode: str, conflicts: float = 1.0, gather: float = 0.0) -> dict[str, float]:
    """Cycles of a multiprocessor that one warp's instruction takes of each pipe.

    conflicts: how often a look-up in shared memory meets a bank. gather: bytes a cycle of loads of 16 bytes
    at random places, 0 where loads follow each other.
    """
    found = {"issue": 1 / 4}
    if opcode.startswith(("RED", "ATOM")) and not opcode.startswith(("REDUX", "ATOMS")):
        return found | {"atomics": (32 * width(opcode) / 32) / (_SLICES / H200.sms), "ldg": 1.0}
    if multiplied := products(opcode):
        rate = (H200.int8 if opcode[0] == "I" else H200.half) / 2 / H200.cycles
        return found | {"tensor": multiplied / (rate if "GMMA" in opcode else rate / 2)}
    name, lanes = next((name, lanes) for name, pattern, lanes in _PIPES if pattern.match(opcode))
    if lanes is None:
        return found
    cycles = 32 / lanes
    if name in ("ldg", "lds"):
        cycles = max(1.0, width(opcode) / 4)
        if opcode.startswith("LDG") and gather and width(opcode) == 16:
            cycles = 32 * 16 / gather
        if opcode == "LDS":
            cycles *= conflicts
        if opcode.startswith("LDGSTS"):
            found["l2"] = 32 * width(opcode) / (L2 / H200.cycles)
    return found | {name: cycles}


def total(
    code: Code, times: Iterable[float] | None = None, conflicts: float = 1.0, gather: float = 0.0
) -> dict[str, float]:
    """Cycles of each pipe of a multiprocessor for one warp. times: of each instruction, or once."""
    found: dict[str, float] = {}
    for instruction, count in zip(code, times or [1.0] * len(code), strict=True):
        if count:
            for pipe, cycles in costs(instruction.opcode, conflicts, gather).items():
                found[pipe] = found.get(pipe, 0.0) + count * cycles
    return found


def largest(cycles: dict[str, float]) -> str:
    return max(cycles, key=lambda pipe: cycles[pipe], default="")


def blocks(registers: int, shared: int, warps: int) -> int:
    """Programs that a multiprocessor holds at a time: of registers in eights, shared memory and threads."""
    of_registers = 65536 // (-(-max(registers, 1) // 8) * 8 * 32 * warps)
    return min(of_registers, 64 // warps, 32, 227 * 1024 // (shared + 1024))
