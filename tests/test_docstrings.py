"""Docstrings of public names are numpydoc: their Parameters are the signature's, and their Examples run."""

import doctest
import importlib
import inspect
import re
from typing import Any

import pytest

import gpuzip

MODULES = (
    *("gpuzip.distributed", "gpuzip.nn", "gpuzip.plots", "gpuzip.reports", "gpuzip.words", "gpuzip.sizes"),
    *("gpuzip.interop.smallfry", "gpuzip.interop.matrices", "gpuzip.interop.embzip"),
)


def _public() -> dict[str, Any]:
    """Functions and classes by name, with the methods that the classes define themselves."""
    found: dict[str, Any] = {}
    for module in (gpuzip, *map(importlib.import_module, MODULES)):
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
        for name in names:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{module.__name__}.{name}"] = value
    for name, value in list(found.items()):
        if inspect.isclass(value):
            for member, method in vars(value).items():
                method = getattr(method, "__func__", method)
                if not member.startswith("_") and inspect.isfunction(method):
                    found[f"{name}.{member}"] = method
    return found


PUBLIC = _public()


def _documented(text: str) -> list[str] | None:
    """Names in the Parameters section; None without one."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", text, re.DOTALL | re.MULTILINE)
    if section is None:
        return None
    heads = re.findall(r"^(\*{0,2}\w[\w, *]*?)(?: :.*)?$", section[1], re.MULTILINE)
    return [name.strip(" *") for head in heads for name in head.split(",")]


NUMPYDOC = sorted(
    name for name, value in PUBLIC.items() if _documented(inspect.getdoc(value) or "") is not None
)


@pytest.mark.parametrize(
    "name", sorted(n for n, value in PUBLIC.items() if n.count(".") < 3 and "Error" not in n)
)
def test_every_public_name_has_a_docstring(name):
    assert inspect.getdoc(PUBLIC[name])


def test_every_docstring_of_a_name_with_parameters_is_numpydoc():
    found = {
        name.removeprefix("gpuzip.")
        for name, value in PUBLIC.items()
        if name not in NUMPYDOC
        and "Error" not in name
        and "\n---" not in (inspect.getdoc(value) or "")
        and set(inspect.signature(value).parameters) - {"self", "cls"}
    }
    assert found == set()


@pytest.mark.parametrize("name", NUMPYDOC)
def test_parameters_are_those_of_the_signature(name):
    names = [n for n in inspect.signature(PUBLIC[name]).parameters if n not in ("self", "cls")]
    assert _documented(inspect.getdoc(PUBLIC[name]) or "") == names


@pytest.mark.parametrize("name", sorted(n for n, v in PUBLIC.items() if ">>>" in (inspect.getdoc(v) or "")))
def test_examples_run(name):
    text = inspect.cleandoc(PUBLIC[name].__doc__ or "")
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0
