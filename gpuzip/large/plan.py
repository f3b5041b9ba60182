"""How many rows to take at a time, for so much memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from gpuzip._core.device import is_gpu
from gpuzip._core.rows import BLOCK_BYTES
from gpuzip.choose.by_bytes import parse_bytes
from gpuzip.errors import GpuzipError
from gpuzip.storage.blocks import rows_per_block

#: Memory to work in, where the caller names none, and the least that suffices.
DEFAULT_MEMORY, LEAST_MEMORY = 1 << 30, 256 << 20

#: Rows of a sample, where the caller names no number.
SAMPLE = 1 << 16

_SHARD_ROWS, _SHARD_BYTES = 1 << 18, 64 << 20  # of a shard: the smaller of both
_READ = 16  # of the memory, which share is read at a time
_TRAINING = 6  # times a sample that a training takes
_ON_GPU = 6  # times a chunk that it takes on a GPU: two of them, and what encoding one takes
_GPU_CHUNK = 1 << 30  # bytes


@dataclass(frozen=True)
class Memory:
    """Bytes that may be taken on the CPU, beside what the process has, and on the GPU; None without one."""

    cpu: int
    gpu: int | None

    def most_sampled(self, d: int) -> int:
        """Rows of a sample that can be trained on."""
        least = self.cpu if self.gpu is None else min(self.cpu, self.gpu)
        return least // (_TRAINING * 4 * d)

    def chunk(self, d: int) -> int:
        """Rows that are read and encoded at a time.

        On a CPU whole blocks of those that an encoder takes at once, so that its blocks begin at the same
        rows however much memory there is.
        """
        if self.gpu is not None:
            return max(1, min(self.gpu // _ON_GPU, self.cpu // _READ, _GPU_CHUNK) // (4 * d))
        block = max(1, BLOCK_BYTES // (4 * d))
        return block * max(1, self.cpu // _READ // (4 * d * block))


def memory_of(who: str, max_memory: Any, max_gpu_memory: Any, device: torch.device) -> Memory:
    """The memory that a caller allows. Raises GpuzipError for too little."""
    cpu = DEFAULT_MEMORY if max_memory is None else parse_bytes(who, "max_memory", max_memory)
    if cpu < LEAST_MEMORY:
        raise GpuzipError(
            f"{who}: max_memory must be at least {LEAST_MEMORY} bytes, which a block of rows and its encoder "
            f"take; got {cpu}. Allow more."
        )
    if not is_gpu(device):
        if max_gpu_memory is not None:
            raise GpuzipError(
                f"{who}: max_gpu_memory must come with a GPU as device; got {device}. Omit one."
            )
        return Memory(cpu, None)
    if max_gpu_memory is None:
        return Memory(cpu, torch.cuda.mem_get_info(device)[0] // 2)
    return Memory(cpu, parse_bytes(who, "max_gpu_memory", max_gpu_memory))


def sampled(who: str, asked: int | None, memory: Memory, d: int) -> int:
    """Rows of the sample: as many as asked for, or what memory allows up to SAMPLE. Raises GpuzipError."""
    most = memory.most_sampled(d)
    if asked is None:
        return min(SAMPLE, most)
    if asked > most:
        raise GpuzipError(
            f"{who}: sample_rows must be at most {most}, for which a training has room in the memory that is "
            f"allowed; got {asked}. Allow more by max_memory, or sample fewer."
        )
    return asked


def shard_rows_of(who: str, asked: int | None, code_size: int) -> int:
    """Rows per shard: whole blocks of those that have one checksum."""
    block = rows_per_block(code_size)
    rows = min(_SHARD_ROWS, _SHARD_BYTES // code_size) if asked is None else asked
    return max(block, rows // block * block)
