"""What a compiled kernel takes and is made of: registers, stack, and instructions by class.

Disassemblers take half a second to start, so all kernels of a target go through one call, their code end to
end.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import triton

from tools.gate.rows import Target
from tools.gate.sass import Instruction, parse

#: Classes of instructions, by how the opcode begins in SASS or in AMD's assembly.
CLASSES = {
    "tensor": r"[HIQBD]G?MMA|UTC\w*MMA|v_s?mfma|v_wmma",
    "wgmma": r"[HIQB]GMMA",  # a whole warp group at a time, operands in shared memory: the fast ones of sm_90
    "popc": r"U?POPC|v_bcnt|s_bcnt",
    "lds": r"LDS(M|\b)|ds_(read|load)",
    "sts": r"STS(M|\b)|ds_(write|store)",
    "sts8": r"STS\.U8|ds_(write|store)_b8",
    "async": r"LDGSTS|UBLKCP|UTMALDG|(global|buffer)_load_lds",
    "ldg128": r"LDG\.\S*128|(global|buffer|flat)_load_(dwordx4|b128)",
    "stg128": r"STG\.\S*128|(global|buffer|flat)_store_(dwordx4|b128)",
    "spill": r"LDL|STL|scratch_",
    "float_atomic": r"(ATOM[GS]?|REDG?)\.\S*F(16|32|64)|\w+_atomic_\w*_b?f(16|32|64)",
}
_CLASSES = {name: re.compile(pattern) for name, pattern in CLASSES.items()}


def usage(target: Target, kernel: Any) -> tuple[int, int, bytes]:
    """Registers and stack bytes of a thread, and the code for `instructions`."""
    if target.gpu.backend == "hip":
        return _usage_amd(kernel.asm["amdgcn"])
    return _usage_nvidia(kernel.asm["cubin"])


def _usage_nvidia(cubin: bytes) -> tuple[int, int, bytes]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = _run(triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if not found:
        raise RuntimeError("cuobjdump names no registers")
    return int(found[1]), int(found[2]), b"".join(_executable_sections(cubin))


def _executable_sections(elf: bytes) -> Iterator[bytes]:
    """Executable sections of a 64-bit ELF file: sh_flags has SHF_EXECINSTR; by sh_offset and sh_size."""
    (start,) = struct.unpack_from("<Q", elf, 0x28)
    size, count = struct.unpack_from("<2H", elf, 0x3A)
    for i in range(count):
        _, _, flags, _, offset, length = struct.unpack_from("<2I4Q", elf, start + i * size)
        if flags & 4:
            yield elf[offset : offset + length]


def _usage_amd(text: str) -> tuple[int, int, bytes]:
    registers = re.search(r"\.vgpr_count:\s*(\d+)", text)
    scratch = re.search(r"\.private_segment_fixed_size:\s*(\d+)", text)
    if not (registers and scratch):
        raise RuntimeError("the assembly names no registers")
    mnemonics = re.findall(r"^\s+((?:[vs]_|ds_|global_|flat_|buffer_|scratch_)\w+)", text, re.MULTILINE)
    return int(registers[1]), int(scratch[1]), "\n".join(mnemonics).encode()


def instructions(target: Target, codes: list[bytes]) -> list[list[Instruction]]:
    """Those of each kernel, without NOPs; of AMD's the opcodes alone."""
    if target.gpu.backend == "hip":
        return [[Instruction(opcode) for opcode in code.decode().split()] for code in codes]
    if not codes:
        return []
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"".join(codes))
        file.flush()
        found = parse(_run(triton.knobs.nvidia.nvdisasm.path, "-ndf", "-b", target.sass, file.name))
    if len(found) != sum(map(len, codes)) // 16:
        raise RuntimeError("nvdisasm reads another number of instructions than there are")
    stream = iter(found)
    kernels = [islice(stream, len(code) // 16) for code in codes]
    return [[one for one in kernel if one.opcode != "NOP"] for kernel in kernels]


def count(opcodes: Iterable[str]) -> dict[str, int]:
    """How many instructions of each class there are."""
    counts = dict.fromkeys(_CLASSES, 0)
    for opcode in opcodes:
        for name, pattern in _CLASSES.items():
            counts[name] += pattern.match(opcode) is not None
    return counts


def _run(*command: str) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{command[0].rpartition('/')[2]}: {(run.stderr or run.stdout).strip()}")
    return run.stdout
