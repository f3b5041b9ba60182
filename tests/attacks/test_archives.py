"""Mutated archives of every scheme are refused, or give exactly the right rows."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process, reads /proc")


def check(status: int, said: str, count: int) -> None:
    assert status == 0, f"the process that reads ended with {status}"  # negative: it crashed
    found: dict[str, Any] = json.loads(said)
    assert found["wrong"] == []
    kinds = {"mutated refused", "sealed again refused", "in parts refused", "in parts read"}
    assert kinds <= set(found["counts"]) and sum(found["counts"].values()) == count


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_mutated_archives_are_refused_or_right_in_little_memory(tmp_path: Path):
    from tests.attacks.archives import files, run

    files()
    child = os.fork()
    if not child:
        try:
            (tmp_path / "said").write_text(json.dumps(run(60, 0)))
        finally:
            os._exit(not (tmp_path / "said").exists())
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    check(status, (tmp_path / "said").read_text() if status == 0 else "", 60)


@pytest.mark.full
def test_many_mutated_archives_in_a_process_of_their_own():
    command = [sys.executable, "-W", "ignore", "-m", "tests.attacks.archives", "10000", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    check(done.returncode, done.stdout, 10_000)
