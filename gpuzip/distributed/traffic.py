"""Bytes that ranks send each other, counted where the caller asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

_counted: ContextVar[Traffic | None] = ContextVar("counted", default=None)


@dataclass
class Traffic:
    """Hold what this rank received from other ranks.

    Attributes
    ----------
    received : int
        Bytes. A sum over R ranks counts as 2 (R - 1) / R times its size, as a ring moves it.
    calls : int
        Collectives, each of which waits for all ranks.
    """

    received: int = 0
    calls: int = 0


@contextmanager
def traffic() -> Iterator[Traffic]:
    """Count the bytes that calls of gpuzip.distributed receive inside a `with` block.

    Yields
    ------
    Traffic
        The count so far.

    Examples
    --------
    >>> import gpuzip, torch
    >>> from gpuzip import distributed
    >>> x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    >>> codes = gpuzip.HalfQuantizer().fit(x).encode(x)
    >>> with distributed.traffic() as counted:
    ...     _ = distributed.search(codes, x[:2], k=3)
    >>> counted.received  # a single rank
    0
    """
    before = _counted.set(counted := Traffic())
    try:
        yield counted
    finally:
        _counted.reset(before)


def received(nbytes: int) -> None:
    """Count one collective and its bytes."""
    counted = _counted.get()
    if counted is not None:
        counted.received += nbytes
        counted.calls += 1
