"""Bars of progress on standard error: rich's where it is installed, else a line of text."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

_EACH = 0.1  # seconds between two updates of the line
_LATE = 0.02  # seconds that a timer waits beyond its time, so as not to be early
_WIDTH = 24  # characters of the line's bar


@dataclass
class Step:
    """One task of a bar: what is done of a total, which is 0 where nobody knows it, and since when."""

    title: str
    total: int
    of_bytes: bool
    done: int = 0
    began: float = field(default_factory=lambda: time.monotonic())

    @property
    def rate(self) -> float:
        """Rows, bytes or codecs per second."""
        return self.done / max(1e-9, time.monotonic() - self.began)

    @property
    def left(self) -> float | None:
        """Seconds left at this rate; None before anything is done, or where there is no total."""
        return None if not (self.done and self.total) else max(0.0, (self.total - self.done) / self.rate)

    def facts(self) -> str:
        """Done, total, rate and time left, as text."""
        if self.of_bytes:
            some = f"{_bytes(self.done)} of {_bytes(self.total)}, {_bytes(self.rate)}/s"
        else:
            total = f"/{self.total:,}" if self.total else ""
            some = f"{self.done:,}{total}, {_count(self.rate)}/s"
        return some if self.left is None else f"{some}, {_time(self.left)} left"


class _Shown(Protocol):
    """What shows one step."""

    def update(self) -> None: ...

    def stop(self) -> None: ...


class Bar:
    """Show the steps of a call, one bar at a time, once it has run for some seconds.

    Parameters
    ----------
    after : float, default 0.0
        Seconds after the first step before anything is shown.
    """

    def __init__(self, after: float = 0.0) -> None:
        self._after, self._began = after, 0.0
        self._steps: list[Step] = []
        self._shown: _Shown | None = None  # of the last step
        self._lock = threading.RLock()

    @contextmanager
    def step(self, title: str, total: int, of_bytes: bool) -> Iterator[Callable[[int], object]]:
        """Yield the function that updates a step. A step within another takes its place until it ends."""
        step = Step(title, total, of_bytes)
        self._began = self._began or step.began
        wait = self._began + self._after - step.began + _LATE
        timer = threading.Timer(max(0.0, wait), self._show, [step])
        timer.daemon = True
        with self._lock:
            self._hide()
            self._steps.append(step)
        self._show(step)
        if self._shown is None:
            timer.start()

        def update(done: int) -> None:
            step.done = done
            self._show(step)

        try:
            yield update
        finally:
            timer.cancel()
            with self._lock:
                self._hide()
                self._steps.pop()

    def _show(self, step: Step) -> None:
        """Show the step, if it is the last one and it is time."""
        with self._lock:
            if not self._steps or self._steps[-1] is not step:
                return
            if self._shown is not None:
                self._shown.update()
            elif time.monotonic() - self._began >= self._after:
                self._shown = _shown(step)

    def _hide(self) -> None:
        if self._shown is not None:
            self._shown.stop()
            self._shown = None


def _shown(step: Step) -> _Shown:
    try:
        return _RichBar(step)
    except ImportError:
        return _Line(step)


class _RichBar:
    """rich's bar."""

    def __init__(self, step: Step) -> None:
        import rich.console
        import rich.progress as rich_progress

        columns = (
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.TextColumn("{task.fields[facts]}"),
        )
        self._bars: Any = rich_progress.Progress(*columns, console=rich.console.Console(stderr=True))
        self._step = step
        self._task = self._bars.add_task(step.title, total=step.total or None, facts=step.facts())
        self._bars.start()

    def update(self) -> None:
        self._bars.update(self._task, completed=self._step.done, facts=self._step.facts())

    def stop(self) -> None:
        self.update()
        self._bars.stop()


class _Line:
    """A line of text that is written anew; on what is no terminal, only its last state."""

    def __init__(self, step: Step) -> None:
        self._step, self._last = step, 0.0
        self._is_terminal = sys.stderr.isatty()
        self.update()

    def update(self) -> None:
        if self._is_terminal and time.monotonic() - self._last >= _EACH:
            self._last = time.monotonic()
            self._write("\r", "")

    def _write(self, before: str, after: str) -> None:
        step = self._step
        full = _WIDTH if not step.total else min(_WIDTH, _WIDTH * step.done // step.total)
        text = f"{step.title} [{'#' * full}{'.' * (_WIDTH - full)}] {step.facts()}"
        sys.stderr.write(f"{before}{text}{' ' * max(0, 78 - len(text))}{after}")
        sys.stderr.flush()

    def stop(self) -> None:
        self._write("\r" if self._is_terminal else "", "\n")


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} GB"


def _count(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.2g}"


def _time(seconds: float) -> str:
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
