"""Processes that are the ranks of a gloo group on this machine, started once and used by many calls."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def of_sizes(size: int) -> list[int]:
    """Sizes of the groups that processes of so many ranks have: the first one, two, four."""
    return [some for some in (1, 2, 4) if some <= size]


def _serve(rank: int, size: int, store: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=600)
    )
    groups = {some: dist.new_group(list(range(some))) for some in of_sizes(size)}
    while True:
        try:
            work, some, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, work(groups[some], *arguments)))
        except Exception as error:
            pipe.send((False, error))


class Cluster:
    """call(work, size, arguments of each rank): what work(group, *arguments) gives or raises on each."""

    pipes: list[Any]
    processes: list[Any]

    def __init__(self, size: int, folder: Path, patience: float) -> None:
        self._patience = patience
        context = multiprocessing.get_context("forkserver")  # which imports torch once for all ranks
        context.set_forkserver_preload(["torch", "gpuzip.distributed"])
        self.pipes, self.processes = [], []
        for rank in range(size):
            ours, theirs = context.Pipe()
            arguments = (rank, size, str(folder / "store"), theirs)
            self.processes.append(context.Process(target=_serve, args=arguments, daemon=True))
            self.processes[-1].start()
            theirs.close()
            self.pipes.append(ours)

    def outcomes(self, work: Callable[..., Any], arguments: list[tuple]) -> list[Any]:
        """What each of the first ranks returned, or the exception that it raised."""
        for pipe, own in zip(self.pipes, arguments, strict=False):
            pipe.send((work, len(arguments), own))
        return [self._answer(pipe)[1] for pipe, _ in zip(self.pipes, arguments, strict=False)]

    def call(self, work: Callable[..., Any], arguments: list[tuple]) -> list[Any]:
        """What each of the first ranks returned."""
        found = self.outcomes(work, arguments)
        for one in found:
            if isinstance(one, Exception):
                raise one
        return found

    def answer(self, rank: int) -> tuple[bool, Any]:
        """Whether a rank's call returned, and what it returned or raised."""
        return self._answer(self.pipes[rank])

    def _answer(self, pipe: Any) -> tuple[bool, Any]:
        if not pipe.poll(self._patience):
            raise TimeoutError(f"a rank must answer within {self._patience:.0f} s; it does not")
        ok, found = pipe.recv()
        return ok, found

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


@contextmanager
def cluster(size: int, patience: float = 120.0) -> Iterator[Cluster]:
    """A Cluster that waits so many seconds for a call, and whose processes have ended after the block."""
    with tempfile.TemporaryDirectory() as folder:
        started = Cluster(size, Path(folder), patience)
        try:
            yield started
        finally:
            started.close()
