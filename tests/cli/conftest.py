"""A folder with a matrix and queries, and a function that runs a command in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("typer")


class Ran(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def gpuzip_run() -> Callable[..., Ran]:
    from typer.testing import CliRunner

    from gpuzip.cli.app import app

    def run(*words: Any, stdin: bytes | None = None) -> Ran:
        done = CliRunner().invoke(app, [str(word) for word in words], input=stdin, prog_name="gpuzip")
        return Ran(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """x.npy of (400, 16) float32, q.npy of five of its rows; the working folder is here."""
    x = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "q.npy", x[7:12])
    monkeypatch.chdir(tmp_path)
    return tmp_path
