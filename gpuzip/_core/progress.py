"""Report the progress of long calls, by a bar or to a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpuzip.errors import GpuzipError, MissingDependencyError

Progress = bool | Callable[[int, int], object] | None


@contextmanager
def reporting(
    who: str, progress: Progress, title: str, total: int, *, of_bytes: bool = False
) -> Iterator[Callable[[int], object]]:
    """Yield a function to call with how much is done of the total.

    progress: True shows a bar (needs rich). A function is called with what is done and the total.
    """
    if progress is None or progress is False:
        yield lambda done: None
    elif progress is True:
        try:
            import rich.progress as rich
        except ImportError as error:
            raise MissingDependencyError(
                f"{who}: progress=True needs rich: pip install rich, or pass a function of two numbers."
            ) from error
        count = rich.DownloadColumn() if of_bytes else rich.MofNCompleteColumn()
        columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), count, rich.TimeRemainingColumn())
        with rich.Progress(*columns) as bars:
            task = bars.add_task(title, total=total)
            yield lambda done: bars.update(task, completed=done)
    elif callable(progress):
        yield lambda done: progress(done, total)
    else:
        raise GpuzipError(
            f"{who}: progress must be a bool, None or a function of two numbers; got {progress!r}."
        )
