"""Where the time of a long call goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Seconds by name of what was done."""

    spent: Counter[str]

    def __init__(self) -> None:
        self.spent = Counter()

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Count the time of the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] += time.perf_counter() - start  # type: ignore[assignment]

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items; the time until each comes counts."""
        rest = iter(items)
        while True:
            with self.of(name):
                try:
                    item = next(rest)
                except StopIteration:
                    return
            yield item
