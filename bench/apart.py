"""Calls in a process of their own, so that one that dies or hangs takes no other with it."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")
_said: Connection | None = None  # where `say` of a process goes


class Answer(NamedTuple, Generic[T]):
    """What a call gave, or how its process ended before it did, and the last step that it named."""

    result: T | None
    death: str = ""
    step: str = "starting"


class BrokenError(Exception):
    """The process can do nothing more, though this call has a result: the others go to a new one."""

    def __init__(self, result: Any) -> None:
        super().__init__(result)
        self.result = result


def say(step: str) -> None:
    """Name the step that a call is in, for `Answer.step`."""
    if _said is not None:
        _said.send(("step", step))


def each(call: Callable[[Any], T], items: Sequence[Any], patience: float) -> Iterator[Answer[T]]:
    """call(item) for all of them, one after another; a new process goes on after a death.

    call: a function of a module, as it runs in other processes. patience: seconds for one item.
    """
    done = 0
    while done < len(items):
        for answer in _one_process(call, items[done:], patience):
            done += 1
            yield answer


def _one_process(call: Callable[[Any], T], items: Sequence[Any], patience: float) -> Iterator[Answer[T]]:
    """The answers to some items, the last of which may be how the process died."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work_through, args=(sender, call, items), daemon=True)
    process.start()
    sender.close()  # so that the end of the process is the end of the pipe
    try:
        for _ in items:
            kind, answer = _answer(process, receiver, patience)
            yield answer
            if kind != "result":
                return
    finally:
        process.kill()
        process.join()


def _answer(process: Any, receiver: Connection, patience: float) -> tuple[str, Answer[Any]]:
    step, until = "starting", time.monotonic() + patience
    while receiver.poll(max(0.0, until - time.monotonic())):
        try:
            kind, value = receiver.recv()
        except EOFError:
            process.join()
            return "death", Answer(None, f"its process died: {_cause(process.exitcode)}", step)
        if kind != "step":
            return kind, Answer(value, "", step)
        step = value
    return "death", Answer(None, f"nothing came for {patience:.0f} s", step)


def _work_through(sender: Connection, call: Callable[[Any], Any], items: Sequence[Any]) -> None:
    global _said
    _said = sender
    for item in items:
        try:
            sender.send(("result", call(item)))
        except BrokenError as broken:
            sender.send(("last", broken.result))
            return


def _cause(code: int | None) -> str:
    """`SIGABRT`, or the exit code."""
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
