"""The GPU script without a GPU: a case that fails takes no other with it, and rows are kept as they come."""

import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import apart
from gpuzip.ops import OPS
from tools.roof.floors import Roofs

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")

ROOFS = Roofs(copy=1.0, half=1.0, int8=1.0, sms=1, clock=1.0)


def answer(does):
    """What happens to an item, in another process."""
    apart.say("begun")
    if does == "die":
        os.kill(os.getpid(), 9)
    if does == "exit":
        os._exit(0)
    if does == "hang":
        time.sleep(3600)
    if does == "break":
        raise apart.BrokenError("broken here")
    return os.getpid()


@pytest.mark.full
def test_a_process_that_dies_or_hangs_loses_one_item():
    done = ["work", "die", "work", "exit", "hang", "work"]
    found = list(apart.each(answer, done, patience=60))
    assert [one.result is not None for one in found] == [does == "work" for does in done]
    assert [one.death for one in found if one.death] == [
        "its process died: SIGKILL",
        "its process died: exit code 0",
        "nothing came for 60 s",
    ]
    assert {one.step for one in found} == {"begun"}


@pytest.mark.full
def test_what_is_broken_is_left_to_a_new_process():
    first, broken, *rest = apart.each(answer, ["work", "break", "work", "work"], patience=600)
    assert broken == apart.Answer("broken here", "", "begun")
    assert len({one.result for one in rest}) == 1 and rest[0].result != first.result


def test_a_case_that_fails_says_so_and_a_broken_gpu_ends_its_process(monkeypatch):
    from tools import roofline

    def fails(machine, order):
        raise RuntimeError("no such\nkernel")

    monkeypatch.setattr(roofline, "measure", fails)
    order, said = roofline.Order(67, 0, ROOFS, rehearse=True), "FAILED: RuntimeError: no such kernel"
    assert roofline.measured(order) == (None, said)
    monkeypatch.setattr(roofline, "is_broken", lambda: True)
    with pytest.raises(apart.BrokenError) as broken:
        roofline.measured(order)
    assert broken.value.result == (None, said)


def test_a_row_is_on_disk_before_the_next_case_begins(tmp_path, monkeypatch):
    from tools import roofline
    from tools.roof.machine import Rehearsal

    file, kept = tmp_path / "rows.csv", []

    def each(call, orders, patience):
        for _ in orders:
            kept.append(len(file.read_text().splitlines()) if file.exists() else 0)
            yield apart.Answer(({"kernel": "a", "case": "b", "seconds": 1.0, "share": 0.5}, "right"))

    monkeypatch.setattr(apart, "each", each)
    orders = [roofline.Order(10**6, i, ROOFS) for i in range(3)]
    assert len(roofline.run(orders, Rehearsal(), file)) == 3
    assert kept == [0, 2, 3]


def test_a_wrong_answer_is_named(monkeypatch):
    from tools.roof.cases import cases, present
    from tools.roof.machine import Rehearsal

    case = next(case for case in present(cases(67)) if case.op == "unpack_bits")
    machine = Rehearsal()
    assert machine.judged(case) == "right"
    given = machine.answer
    monkeypatch.setattr(machine, "answer", lambda *args: given(*args) + 1)
    assert machine.judged(case).startswith("WRONG Tensor-likes are not equal")


def test_a_failed_check_lets_the_others_run(monkeypatch, capsys):
    from tools import gpu_check

    def fine():
        pass

    def wrong():
        gpu_check.require(False, "a code is off")

    def broken():
        raise ZeroDivisionError("nothing")

    monkeypatch.setattr(gpu_check, "CHECKS", [wrong, broken, fine])
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--rehearse"])
    assert gpu_check.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("WRONG  wrong: a code is off") and lines[1].startswith(
        "FAILED broken: ZeroDiv"
    )
    assert lines[2].startswith("right  fine") and lines[3].startswith("1 of 3 checks passed")


def test_the_kernels_furthest_from_their_floors_are_profiled():
    from tools.roof.profile import command, furthest

    rows = [
        {"kernel": kernel, "case": case, "share": share}
        for kernel, case, share in [
            ("decode", "x", "0.1"),
            ("decode", "y", "0.2"),
            ("topk", "x", "0.05"),
            ("topk", "x", "0.9"),  # measured again
            ("assign", "x", "0.5"),
            ("k-means", "x", "0.01"),  # a task is no kernel
        ]
    ]
    assert furthest(rows, 2) == [("decode", "x"), ("assign", "x")]
    assert "none" in command("decode", "x")


def test_a_check_names_every_operator_that_fails():
    from tools import gpu_check

    def broken():
        raise ZeroDivisionError("nothing")

    calls = [("a", lambda: False), ("b", broken), ("c", lambda: True)]
    with pytest.raises(gpu_check.WrongAnswerError) as found:
        gpu_check._all(calls, lambda call: call(), "differs")
    assert str(found.value) == "a: differs; b: ZeroDivisionError: nothing"


def test_cases_keep_their_places_whatever_the_rows():
    """A small case of the same place is the one that is judged."""
    from tools.roofline import kind, whole

    assert [kind(case) for case in whole(67)] == [kind(case) for case in whole(10**8)]


@pytest.mark.full
def test_the_tests_for_a_gpu_are_found_without_plugins():
    """A machine with a GPU may have pytest alone; each operator has a test there."""
    root = Path(__file__).parents[1]
    stage = re.search(r'tests\[@\]}" -k "(.*)"', (root / "tools" / "gpu.sh").read_text())
    assert stage is not None
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/test_ops.py", "--collect-only", "-q", "-k", stage[1]],
        cwd=root,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(f"[{name}]" in found.stdout for name in OPS)


@pytest.mark.full
def test_stages_end_with_the_budget():
    """What does not fit into the seconds for all is left out, and the exit status says so."""
    script = Path(__file__).parents[1] / "tools" / "gpu.sh"
    environment = {**os.environ, "PYTHON": sys.executable, "BUDGET": "1"}
    run = subprocess.run([script, "--dry"], env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout.count("left out, since 1 s are over") == 8
    assert "not clean: precompile ops" in run.stdout
