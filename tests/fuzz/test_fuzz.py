"""Coverage-guided fuzzing for a fixed time, where atheris is installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz import corpus

ROOT = Path(__file__).parents[2]
SECONDS = 30


@pytest.mark.full
@pytest.mark.skipif(find_spec("atheris") is None, reason="needs atheris, which has wheels for Linux alone")
def test_no_reader_raises_anything_but_a_format_error(tmp_path: Path):
    inputs, findings = tmp_path / "corpus", tmp_path / "findings"
    inputs.mkdir()
    findings.mkdir()
    assert corpus.write(inputs) > 40
    options = [
        f"-max_total_time={SECONDS}",
        "-timeout=120",
        "-rss_limit_mb=2048",
        "-max_len=20000",
        "-seed=1",
    ]
    options.append("-len_control=0")
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.target",
        str(inputs),
        f"-artifact_prefix={findings}/",
        *options,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-4000:]
    assert list(findings.iterdir()) == []
    assert "DONE" in done.stderr  # libFuzzer ran to its end
