"""Every kernel compiles for GPUs that are not here, and what the gate says when one does not."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton")

import triton

from bench.gate import machine_code, meant, table
from bench.gate.rows import TARGETS, Row
from bench.gate.tiles import Tiles, answers

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "bench" / "results" / "compile_gate.csv"


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """In a process of its own, where triton compiles and does not interpret."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def test_every_kernel_compiles_for_every_target_as_the_table_says(tmp_path):
    run = python("-m", "bench.compile_gate", "--write", str(tmp_path / "table.csv"))
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    assert ", 0 problems, " in run.stdout
    sources = [path.read_text() for path in (ROOT / "kernels").glob("*.py")]
    launched = re.findall(r"(_\w+)\[[^\]]*\]\(", "".join(sources))
    assert len(launched) >= 9
    for kernel in launched:
        for target in TARGETS:
            assert re.search(rf"^{kernel} .* {target} ", run.stdout, re.MULTILINE), (kernel, target)
    if table.version_of(TABLE) == triton.__version__:
        stale = f"{TABLE.name} is out of date: run python -m bench.compile_gate --write"
        assert (tmp_path / "table.csv").read_text() == TABLE.read_text(), stale


def test_what_the_gate_says_of_kernels_that_fail(tmp_path):
    """In one process, as each takes seconds to start: the asserts of the script are the test."""
    script = tmp_path / "script.py"
    script.write_text("""
from dataclasses import replace
from unittest import mock

import gpuzip.kernels.decode as kernels
from bench.compile_gate import compile_for
from bench.gate import meant
from bench.gate.rows import TARGETS
from gpuzip.kernels._launch import launch_or

def bad_tile(*sizes):
    return 7, 16, 1

def rows():
    return compile_for("sm_90", ["decode"])

def a_kernel_that_does_not_compile_is_a_problem():
    with mock.patch.object(kernels, "_tile", bad_tile):
        found = rows()
    assert found and all("power of 2" in row.problem and row.kernel == "_decode" for row in found), found

def a_failure_with_a_declared_fallback_is_named_and_no_problem():
    plain = kernels.decode
    def fast_or_plain(*args):
        def fast():
            with mock.patch.object(kernels, "_tile", bad_tile):
                return plain(*args)
        return launch_or("decode[a tile of seven]", fast, lambda: plain(*args))
    with mock.patch.object(kernels, "decode", fast_or_plain):
        found = rows()
    fallen = [row for row in found if row.fallback]
    assert 0 < len(fallen) < len(found) and not [row for row in found if row.problem], found
    assert fallen[0].kernel == "_decode" and fallen[0].status.startswith("falls back: CompilationError")

def more_shared_memory_than_there_is_is_a_problem():
    with mock.patch.dict(TARGETS, sm_90=replace(TARGETS["sm_90"], shared=-1)):
        found = rows()
    assert found and all("OutOfResources" in row.problem for row in found), found

def a_missing_instruction_is_a_problem():
    with mock.patch.dict(meant.MEANT, _decode=meant.Meant("tensor", "decode")):
        found = rows()
    assert found and all(row.problem == "no tensor instruction" for row in found), found

def a_launcher_that_fails_before_it_launches_is_a_problem():
    with mock.patch.object(kernels, "decode", lambda *args: 1 / 0):
        found = rows()
    assert [row.problem for row in found] == ["the launcher fails: ZeroDivisionError: division by zero"]

a_kernel_that_does_not_compile_is_a_problem()
a_failure_with_a_declared_fallback_is_named_and_no_problem()
more_shared_memory_than_there_is_is_a_problem()
a_missing_instruction_is_a_problem()
a_launcher_that_fails_before_it_launches_is_a_problem()
""")
    run = python("-W", "error", str(script), cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]


def test_a_compiler_that_aborts_is_a_problem_of_its_op(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import os
import bench.compile_gate as gate
import gpuzip.kernels.decode as kernels

kernels.decode = lambda *args: os.abort()

if __name__ == "__main__":
    found = gate.gate(["decode"], ["sm_90"], 1)
    assert found.problems == ["decode on sm_90: its process died: SIGABRT"], found
""")
    run = python(str(script), cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-4000:]


def test_ops_after_a_death_and_a_hang_still_run(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import os, time
from bench.gate import workers

def work(target, op):
    if op == "dies":
        os._exit(3)
    if op == "hangs":
        time.sleep(60)
    return f"{op} on {target}"

if __name__ == "__main__":
    found = workers.run(work, ["a", "b"], ["first", "dies", "hangs", "last"], 2, patience=5)
    assert [(d.target, d.op) for d in found[:4]] == [("a", op) for op in ("first", "dies", "hangs", "last")]
    assert [d.result for d in found[4:]] == ["first on b", None, None, "last on b"], found
    assert [d.death for d in found[:3]] == ["", "its process died: exit code 3", "nothing came for 5 s"]
""")
    run = python(str(script), cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-4000:]


def test_instructions_are_counted_by_class():
    sass = ["HGMMA.64x256x16.F32", "LDS.128", "LDSM.16.M88.4", "LDGSTS.E.BYPASS.128", "LDG.E.128.CONSTANT"]
    sass += ["STS.U8", "STG.E.128", "UPOPC", "RED.E.ADD.F32.FTZ.RN.STRONG.GPU", "REDUX.SUM", "LDL.64", "IMAD"]
    wanted = {"tensor": 1, "wgmma": 1, "popc": 1, "lds": 2, "sts": 1, "sts8": 1, "async": 1, "ldg128": 1}
    assert machine_code.count(sass) == wanted | {"stg128": 1, "spill": 1, "float_atomic": 1}
    amd = ["v_mfma_f32_32x32x8_f16", "v_bcnt_u32_b32", "ds_read_b128", "ds_write_b8", "global_load_dwordx4"]
    amd += ["global_store_dwordx4", "scratch_store_dword", "global_atomic_add_f32", "v_add_f32_e32"]
    wanted |= {"wgmma": 0, "lds": 1, "async": 0}
    assert machine_code.count(amd) == wanted | {"stg128": 1, "spill": 1, "float_atomic": 1}


ROW = Row("_k", "sm_90", "float32", "BN=64 warps=4", 10, 0, 0, 100)


@pytest.mark.parametrize(
    ("need", "counts", "said"),
    [
        (meant.Meant("tensor", "op", rows="BN"), {"tensor": 4, "wgmma": 4}, ""),
        (meant.Meant("tensor", "op", rows="BN"), {"tensor": 4, "wgmma": 0}, "no wgmma instruction"),
        (meant.Meant("tensor", "op"), {"tensor": 4, "wgmma": 0}, ""),
        (meant.Meant("tensor", "op"), {"tensor": 0}, "no tensor instruction"),
        (meant.Meant("tensor", "op", where="warps=4"), {"tensor": 0}, "no tensor instruction"),
        (meant.Meant("tensor", "op", where="warps=8"), {"tensor": 0}, ""),
        (meant.Meant("popc", "op"), {"popc": 0}, "no popc instruction"),
        (None, {"popc": 0}, ""),
        (None, {"spill": 2}, "spills: 0 bytes of stack"),
        (None, {"float_atomic": 1}, "adds floats atomically, in no fixed order"),
    ],
)
def test_what_is_meant_to_be_there_is_missed(monkeypatch, need, counts, said):
    monkeypatch.setattr(meant, "MEANT", {"_k": need} if need else {})
    assert meant.problem(replace(ROW, counts=counts)) == said


def test_a_kernel_that_nothing_compiles_is_missed(monkeypatch):
    monkeypatch.setattr(
        meant, "MEANT", {k: meant.Meant("popc", op) for k, op in (("_k", "a"), ("_l", "a"), ("_m", "b"))}
    )
    assert [text.partition(":")[0] for text in meant.never_built({"_k"}, {"a"})] == ["_l"]


def test_the_table_has_the_worst_of_each_tile():
    rows = [replace(ROW, counts={"tensor": 2}), replace(ROW, counts={"tensor": 5}, problem="spills")]
    lines = table.worst([*rows, replace(ROW, fallback="why")])
    assert len(lines) == 1
    named = dict(zip(table.HEADS, lines[0], strict=True))
    assert (named["variants"], named["tensor"], named["status"]) == ("3", "5", "spills")


def test_samples_sizes_in_use_and_odd_sizes_reach_every_tile(tmp_path):
    """What --every asks after it has compiled; here nothing compiles."""
    script = tmp_path / "script.py"
    script.write_text("""
from unittest import mock

from bench import compile_gate
from bench.gate.build import _Recorder
from bench.gate.rows import TARGETS
from gpuzip.ops import OPS

with mock.patch.object(_Recorder, "compile", lambda *args, **kwargs: None):
    works = [compile_gate.compile_op(target, op, every=True) for target in TARGETS for op in OPS]
assert not [failed.row for work in works for failed in work.built]
unreached = list(compile_gate._unreached([work.tiles for work in works]))
assert not unreached, unreached
""")
    run = python(str(script), cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-4000:]


def test_a_tile_that_no_launch_reaches_is_found():
    import gpuzip.kernels.topk as kernels

    tiles = Tiles()
    with tiles.watch([kernels]):
        kernels._tile(10_000, 10)
    assert any("kernels.topk._tile" in line for line in tiles.unreached(kernels))


def test_a_tile_function_can_be_asked_for_all_its_answers():
    assert set(answers(lambda Q, group: (1 if Q == 1 else 4, max(64, group)))) == {
        (q, n) for q in (1, 4) for n in (64, 128, 256, 512, 1024)
    }
    assert answers(lambda weather: (1, 1)) == []
