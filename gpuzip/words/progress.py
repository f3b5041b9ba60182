"""How far a file has been read: a bar, or a function of the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpuzip.errors import GpuzipError, MissingDependencyError

Progress = bool | Callable[[int, int], object] | None


@contextmanager
def reporting(progress: Progress, title: str, total: int) -> Iterator[Callable[[int], object]]:
    """What to call with the number of bytes done.

    progress: True shows a bar (needs rich), a function is called with bytes done and total.
    """
    if progress is None or progress is False:
        yield lambda done: None
    elif progress is True:
        try:
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars
        except ModuleNotFoundError as error:
            raise MissingDependencyError("rich is not installed: pip install 'gpuzip[words]'.") from error
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Bars(*columns) as bars:
            task = bars.add_task(title, total=total)
            yield lambda done: bars.update(task, completed=done)
    elif callable(progress):
        yield lambda done: progress(done, total)
    else:
        raise GpuzipError(
            f"progress must be True, False, None or a function of bytes done and total; got {progress!r}."
        )
