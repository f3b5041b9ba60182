"""Packages that only some calls need, and what to install where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gpuzip.errors import MissingDependencyError


@contextmanager
def needs(package: str, extra: str) -> Iterator[None]:
    """Within the block the package is imported; MissingDependencyError names the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"{package} is not installed: pip install 'gpuzip[{extra}]'.") from error
