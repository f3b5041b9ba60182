"""Collectives of torch.distributed that count their bytes and end in an error where a rank fails."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gpuzip.distributed.traffic import received
from gpuzip.errors import GpuzipError

T = TypeVar("T")

#: Seconds that a call waits for the other ranks.
TIMEOUT = 300.0

_TOLD = 480  # bytes of an error that the other ranks are told
_CPU = torch.device("cpu")


def number_of(content: bytes) -> int:
    """A number that tells contents apart."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little", signed=True)


class Ranks:
    """The ranks of a process group, as one call uses them; a single rank where there is no group."""

    who: str
    size: int
    rank: int
    device: torch.device

    def __init__(self, who: str, group: Any, timeout: float) -> None:
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < 1e9:
            raise GpuzipError(f"{who}: timeout must be a number of seconds above 0; got {timeout!r}.")
        self.who, self._group, self._timeout = who, group, timedelta(seconds=float(timeout))
        self.rank, self.size, self.device = 0, 1, _CPU
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
            return
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise GpuzipError(
                f"{who}: this rank must be one of the group; it is not. Call it on the group's ranks alone."
            )
        on_gpu = "nccl" in str(dist.get_backend(group))
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else _CPU

    def gathered(self, part: Tensor) -> list[Tensor]:
        """The tensor of each rank, all of one shape and dtype, on the device of this one."""
        if self.size == 1 or part.numel() == 0:
            return [part] * self.size
        sent = part.to(self.device).contiguous()
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        self._wait(lambda: dist.all_gather(parts, sent, group=self._group, async_op=True))
        received((self.size - 1) * sent.nbytes)
        return [one.to(part.device) for one in parts]

    def gathered_rows(self, part: Tensor, counts: list[int]) -> list[Tensor]:
        """The rows of each rank, counts of them."""
        padded = part.new_zeros((max(counts), *part.shape[1:]))
        padded[: len(part)] = part
        return [rows[:n] for rows, n in zip(self.gathered(padded), counts, strict=True)]

    def exchanged(self, parts: list[Tensor], counts: list[int]) -> list[Tensor]:
        """What each rank had for this one. parts: for each rank; counts: rows that come from each."""
        if self.size == 1:
            return parts
        device, like = parts[0].device, parts[0]
        sent = torch.cat(parts).to(self.device).contiguous()
        came = sent.new_empty((sum(counts), *like.shape[1:]))
        sizes = [len(part) for part in parts]
        self._wait(
            lambda: dist.all_to_all_single(came, sent, counts, sizes, group=self._group, async_op=True)
        )
        received(came.nbytes - came[: counts[self.rank]].nbytes)
        return list(came.to(device).split(counts))

    def total(self, part: Tensor) -> Tensor:
        """The sum over all ranks of a tensor of whole numbers, which no order of sums changes."""
        if self.size == 1:
            return part
        summed = part.to(self.device, copy=True).contiguous()
        self._wait(lambda: dist.all_reduce(summed, group=self._group, async_op=True))
        received(2 * (self.size - 1) * summed.nbytes // self.size)
        return summed.to(part.device)

    def from_first(self, content: bytes) -> bytes:
        """The bytes of rank 0."""
        sizes = self.facts([len(content)])
        held = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8)
        told = held if self.rank == 0 else held.new_empty(sizes[0][0])
        return bytes(self._broadcast(told).tolist() if self.size > 1 else content)

    def _broadcast(self, held: Tensor) -> Tensor:
        sent = held.to(self.device)
        first = 0 if self._group is None else dist.get_global_rank(self._group, 0)
        self._wait(lambda: dist.broadcast(sent, first, group=self._group, async_op=True))
        received(0 if self.rank == 0 else sent.nbytes)
        return sent.cpu()

    def facts(self, own: list[int]) -> list[list[int]]:
        """Whole numbers of each rank."""
        parts = self.gathered(torch.tensor(own, dtype=torch.int64, device="cpu"))
        return [part.tolist() for part in parts]

    def same(self, what: str, content: bytes) -> None:
        """Raise GpuzipError unless all ranks have this content."""
        self.check_same(what, [number for (number,) in self.facts([number_of(content)])])

    def check_same(self, what: str, numbers: list[int]) -> None:
        """Raise GpuzipError unless the `number_of` the content of all ranks is the same."""
        other = next((rank for rank, one in enumerate(numbers) if one != numbers[0]), None)
        if other is not None:
            raise GpuzipError(
                f"{self.who}: {what} must be the same on all ranks; rank {other} has another than rank 0. "
                "Make it on one rank and send it to the others."
            )

    def all_do(self, work: Callable[[], T]) -> T:
        """work() on every rank. Where it fails on one, it is an error on all, and none waits for others."""
        return self.all_tell(lambda: (work(), []), 0)[0]

    def all_tell(self, work: Callable[[], tuple[T, list[int]]], width: int) -> tuple[T, list[list[int]]]:
        """`all_do` of work that also gives whole numbers, `width` of them; returns those of each rank."""
        failure: Exception | None = None
        own: list[int] = [0] * width
        try:
            result, own = work()
        except Exception as error:
            failure = error
        facts = self.facts([failure is not None, *own]) if self.size > 1 or failure is None else []
        if any(failed for failed, *_ in facts):
            self._tell(failure, [failed for failed, *_ in facts].index(1))
        if failure is not None:
            raise failure
        return result, [numbers for _, *numbers in facts]

    def _tell(self, failure: Exception | None, rank: int) -> None:
        """Tell the other ranks of this one's failure; raise GpuzipError if it has none but rank has."""
        text = b"" if failure is None else f"{type(failure).__name__}: {failure}".encode()[:_TOLD]
        told = torch.zeros(_TOLD, dtype=torch.uint8, device="cpu")
        told[: len(text)] = torch.tensor(list(text), dtype=torch.uint8, device="cpu")
        texts = [bytes(one.tolist()).rstrip(b"\0").decode(errors="ignore") for one in self.gathered(told)]
        if failure is None:
            raise GpuzipError(f"{self.who}: rank {rank} failed: {texts[rank]}")

    def _wait(self, start: Callable[[], Any]) -> None:
        with self._or_gone():
            start().wait(self._timeout)

    @contextmanager
    def _or_gone(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # what gloo and NCCL raise: a rank has died, or the time is over
            self._gone(error)

    def _gone(self, error: RuntimeError) -> NoReturn:
        raise ConnectionError(
            f"{self.who}: all {self.size} ranks must take part within {self._timeout.total_seconds():g} s; "
            f"another one has ended or is late ({error!s:.200}). End all ranks, and start them anew."
        ) from error
