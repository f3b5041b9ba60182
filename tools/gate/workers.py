"""One process a target, so that a compiler that aborts takes nothing else with it."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Done(NamedTuple, Generic[T]):
    """What an op gave on a target, or how its process died."""

    target: str
    op: str
    result: T | None
    death: str = ""


def run(
    work: Callable[[str, str], T], targets: Iterable[str], ops: list[str], jobs: int, patience: float = 600.0
) -> list[Done[T]]:
    """work(target, op) for all of them, `jobs` targets at a time; in the order of targets, then ops.

    work: a function of a module, as it runs in other processes. patience: seconds for one op.
    """

    def one_target(target: str) -> list[Done[T]]:
        done: list[Done[T]] = []
        while len(done) < len(ops):
            done += _until_a_death(work, target, ops[len(done) :], patience)
        return done

    with ThreadPoolExecutor(jobs) as pool:
        return [done for found in pool.map(one_target, targets) for done in found]


def _until_a_death(
    work: Callable[[str, str], T], target: str, ops: list[str], patience: float
) -> list[Done[T]]:
    """A process works through the ops; where it dies, the last of what is returned says of what."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work_through, args=(sender, work, target, ops), daemon=True)
    process.start()
    sender.close()  # so that the end of the process is the end of the pipe
    done: list[Done[T]] = []
    for op in ops:
        try:
            if not receiver.poll(patience):
                process.kill()
                done.append(Done(target, op, None, f"nothing came for {patience:.0f} s"))
                break
            done.append(Done(target, op, receiver.recv()))
        except EOFError:
            process.join()
            done.append(Done(target, op, None, f"its process died: {_cause(process.exitcode)}"))
            break
    process.join()
    return done


def _work_through(sender: Connection, work: Callable[[str, str], T], target: str, ops: list[str]) -> None:
    for op in ops:
        sender.send(work(target, op))


def _cause(code: int | None) -> str:
    """`SIGABRT`, or the exit code."""
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
