"""Blocks of rows to a GPU: each is copied from pinned memory while the one before is worked on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from gpuzip._core.device import is_gpu


class Lane(Protocol):
    """What copies blocks, in order. A ticket is what `begin` returns."""

    def begin(self, block: Tensor) -> tuple[Tensor, object]: ...
    def arrived(self, copy: tuple[Tensor, object]) -> Tensor: ...


def uploaded(blocks: Iterable[Tensor], device: torch.device, lane: Lane | None = None) -> Iterator[Tensor]:
    """The blocks on a device, in order. On a GPU two are there at a time: one used, one being copied.

    lane: what copies; by default pinned memory and a stream of its own.
    """
    if lane is None:
        if not is_gpu(device):
            yield from blocks
            return
        lane = _Pinned(device)
    waiting = None
    for block in blocks:
        coming = lane.begin(block)
        if waiting is not None:
            yield lane.arrived(waiting)
        waiting = coming
    if waiting is not None:
        yield lane.arrived(waiting)


class _Pinned:
    """Two buffers of pinned memory by turns, and a stream beside the one that computes."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._buffers: list[Tensor | None] = [None, None]
        self._free = [torch.cuda.Event(), torch.cuda.Event()]
        self._turn = 0

    def begin(self, block: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """Start to copy a block, once the buffer's last copy is done."""
        self._turn = 1 - self._turn
        done = self._free[self._turn]
        done.synchronize()
        staged = self._staged(block)
        with torch.cuda.stream(self._stream):
            there = staged.to(self._device, non_blocking=True)
            done.record(self._stream)
        return there, done

    def arrived(self, copy: tuple[Tensor, object]) -> Tensor:
        """The copy, which what is launched from now on may read."""
        there, done = copy
        assert isinstance(done, torch.cuda.Event)
        current = torch.cuda.current_stream(self._device)
        current.wait_event(done)
        there.record_stream(current)
        return there

    def _staged(self, block: Tensor) -> Tensor:
        """The block in pinned memory."""
        buffer = self._buffers[self._turn]
        if buffer is None or buffer.numel() < block.numel() or buffer.dtype != block.dtype:
            buffer = torch.empty(block.numel(), dtype=block.dtype, device="cpu", pin_memory=True)
            self._buffers[self._turn] = buffer
        staged = buffer[: block.numel()].view(block.shape)
        return staged.copy_(block)
