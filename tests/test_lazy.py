"""Modules that the test imports which first uses them."""

import sys

import pytest

from tests.lazy import Lazy


def test_what_pytest_asks_while_it_collects_imports_nothing(tmp_path, monkeypatch):
    (tmp_path / "slow_module_of_tests.py").write_text("value = 3")
    monkeypatch.syspath_prepend(tmp_path)
    lazy = Lazy("slow_module_of_tests")
    for name in ("__test__", "_mock_name"):
        assert not hasattr(lazy, name)
    assert "slow_module_of_tests" not in sys.modules
    assert lazy.value == 3
    monkeypatch.delitem(sys.modules, "slow_module_of_tests")


def test_a_test_without_the_module_is_skipped():
    with pytest.raises(pytest.skip.Exception, match="could not import 'no_module_of_that_name'"):
        Lazy("no_module_of_that_name").anything  # noqa: B018
