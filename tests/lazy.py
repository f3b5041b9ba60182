"""Slow modules are imported by the test that first uses them, not by every worker that collects tests."""

from typing import Any

import pytest


class Lazy:
    """A module by name; a test that uses it is skipped where it is not installed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest looks for `__test__` and `_mock_name` while it collects
            raise AttributeError(attribute)
        return getattr(pytest.importorskip(self._name), attribute)
