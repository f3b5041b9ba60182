"""Report the progress of long calls, by a bar or to a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpuzip._core.bars import Bar
from gpuzip.errors import GpuzipError

Progress = bool | Callable[[int, int], object] | Bar | None


def shown_as_one(progress: Progress) -> Progress:
    """The same, with one bar for all steps of a call where True asks for a bar."""
    return Bar() if progress is True else progress


@contextmanager
def reporting(
    who: str, progress: Progress, title: str, total: int, *, of_bytes: bool = False
) -> Iterator[Callable[[int], object]]:
    """Yield a function to call with how much is done of the total.

    progress: True shows a bar, a Bar is shown as it says. A function is called with what is done and the
    total.
    """
    if progress is None or progress is False:
        yield lambda done: None
    elif progress is True or isinstance(progress, Bar):
        bar = Bar() if progress is True else progress
        with bar.step(title, total, of_bytes) as update:
            yield update
    elif callable(progress):
        yield lambda done: progress(done, total)
    else:
        raise GpuzipError(
            f"{who}: progress must be a bool, None or a function of two numbers; got {progress!r}."
        )
