"""Each conversion whose package is missing names its extra."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import gpuzip

CALLS: dict[str, tuple[str, Callable]] = {
    "hub": ("huggingface_hub", lambda codes: gpuzip.push_to_hub(codes, "someone/vectors")),
    "arrow": ("pyarrow", gpuzip.to_arrow),
    "duckdb": ("duckdb", lambda codes: gpuzip.to_duckdb(codes, None, "t")),
    "lance": ("lance", lambda codes: gpuzip.to_lance(codes, "x.lance")),
    "datasets": ("datasets", gpuzip.to_datasets),
    "qdrant": ("qdrant_client", gpuzip.to_qdrant),
}
READS: dict[str, Callable] = {
    "hub": gpuzip.from_hub,
    "arrow": gpuzip.from_arrow,
    "duckdb": lambda source: gpuzip.from_duckdb(source, "t"),
    "lance": gpuzip.from_lance,
    "datasets": gpuzip.from_datasets,
}


@pytest.mark.parametrize("extra", CALLS)
def test_the_extra_of_a_missing_package_is_named(extra, real, monkeypatch):
    package, call = CALLS[extra]
    monkeypatch.setitem(sys.modules, package, None)
    named = re.escape(f"is not installed: pip install 'gpuzip[{extra}]'.")
    codes = gpuzip.HalfQuantizer().fit(real[:2]).encode(real[:2])
    with pytest.raises(gpuzip.MissingDependencyError, match=named):
        call(codes)
    if extra in READS:
        with pytest.raises(gpuzip.MissingDependencyError, match=named):
            READS[extra]("x")
    listed = (Path(gpuzip.__file__).parents[1] / "pyproject.toml").read_text()
    assert re.search(rf"^{extra} = \[", listed, re.MULTILINE)
