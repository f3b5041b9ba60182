"""Progress of reading a file, shown as a bar or passed to a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpuzip.errors import GpuzipError, MissingDependencyError

Progress = bool | Callable[[int, int], object] | None


@contextmanager
def reporting(progress: Progress, title: str, total: int) -> Iterator[Callable[[int], object]]:
    """Yield a function to call with the number of bytes read.

    progress: True shows a bar (needs rich). A function is called with bytes read and bytes in all.
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
            f"WordVectors: progress must be a bool, None or a function of two numbers; got {progress!r}."
        )
