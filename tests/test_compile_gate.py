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

from tools import compile_gate
from tools.gate import layouts, machine_code, meant, model, pipes, sass, table
from tools.gate.rows import TARGETS, Row
from tools.gate.tiles import Tiles, answers

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """In a process of its own, where triton compiles and does not interpret."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


@pytest.mark.full
def test_every_kernel_compiles_for_every_target_as_the_table_says(tmp_path):
    run = python("-m", "tools.compile_gate", "--write", str(tmp_path))
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    assert ", 0 problems, " in run.stdout
    sources = [path.read_text() for path in (ROOT / "kernels").glob("*.py")]
    launched = re.findall(r"(_\w+)\[[^\]]*\]\(", "".join(sources))
    assert len(launched) >= 9
    for kernel in launched:
        for target in TARGETS:
            assert re.search(rf"^{kernel} .* {target} ", run.stdout, re.MULTILINE), (kernel, target)
    for name in compile_gate.NAMES:
        committed, new = table.file_of(name, RESULTS), table.file_of(name, tmp_path)
        if committed.exists() and table.version_of(committed) == triton.__version__:
            stale = f"{committed.name} is out of date: run python -m tools.compile_gate --write"
            assert new.read_text() == committed.read_text(), stale


def test_tables_of_both_tritons_are_committed():
    for name in compile_gate.NAMES:
        versions = [table.version_of(RESULTS / file) for file in (f"{name}.csv", f"{name}_3.6.csv")]
        assert versions[0].startswith(f"{table.NEWEST}.") and versions[1].startswith("3.6."), name


@pytest.mark.full
def test_what_the_gate_says_of_kernels_that_fail(tmp_path):
    """In one process, as each takes seconds to start: the asserts of the script are the test."""
    script = tmp_path / "script.py"
    script.write_text("""
from dataclasses import replace
from unittest import mock

import gpuzip.kernels.decode as kernels
from tools.compile_gate import compile_for
from tools.gate import meant
from tools.gate.rows import TARGETS
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


@pytest.mark.full
def test_a_compiler_that_aborts_is_a_problem_of_its_op(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import os
import tools.compile_gate as gate
import gpuzip.kernels.decode as kernels

kernels.decode = lambda *args: os.abort()

if __name__ == "__main__":
    found = gate.gate(["decode"], ["sm_90"], 1)
    assert found.problems == ["decode on sm_90: its process died: SIGABRT"], found
""")
    run = python(str(script), cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-4000:]


@pytest.mark.full
def test_ops_after_a_death_still_run_on_every_target(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
import os
from tools.compile_gate import Order, each

def work(order):
    if order.op == "dies":
        os._exit(3)
    return order

if __name__ == "__main__":
    orders = [Order(target, op) for target in ("sm_80", "sm_90") for op in ("first", "dies", "last")]
    found = list(each(work, orders, 2))
    assert [order for order, _ in found] == orders
    assert [answer.result for _, answer in found] == [None if o.op == "dies" else o for o in orders], found
    assert found[1][1].death == "its process died: exit code 3"
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


def code(*lines):
    """Instructions of lines such as `@P0 BRA 0x20`, 16 bytes each."""
    return sass.parse("".join(f"/*{16 * i:04x}*/ {line} ;\n" for i, line in enumerate(lines)))


NESTED = code(
    "S2R R0, SR_TID.X",
    "LDG.E R1, [R2.64]",  # 0x10: the outer loop
    "HGMMA.64x128x16.F32 R24, gdesc[UR4]",  # 0x20: the inner one
    "LDS R4, [R5]",
    "@P0 BRA 0x20",
    "FADD R1, R1, R4",
    "@P1 BRA 0x10",
    "STG.E [R2.64], R1",
    "EXIT",
    "BRA 0x90",
)


def of_products(instruction):
    return instruction.opcode.startswith("HGMMA")


def test_loops_are_branches_back():
    assert sass.loops(NESTED) == [(1, 6), (2, 4)]
    assert [one.guard for one in NESTED if one.target is not None] == ["@P0", "@P1", ""]


def test_how_often_each_instruction_runs():
    assert sass.runs(NESTED, of_products, [(3, 5)]) == [1, 3, 15, 15, 15, 3, 3, 1, 1, 0]
    assert sass.runs(NESTED, of_products, [(3, 5, 1)])[2] == 15  # what runs once need not be a loop


@pytest.mark.parametrize("nests", [[(3,)], [(3, 5, 2)], [(3, 5), (2, 2)], []])
def test_loops_other_than_stated_are_an_error(nests):
    with pytest.raises(sass.MismatchError, match="declared"):
        sass.runs(NESTED, of_products, nests)


def test_of_two_ways_the_one_with_a_loop_runs_else_the_shorter_and_no_subroutine():
    ways = code("@P0 BRA 0x40", "IADD3 R0", "IADD3 R1", "BRA 0x50", "MOV R2", "EXIT")
    assert sass.runs(ways, of_products, []) == [1, 0, 0, 0, 1, 1]
    looped = code("@P0 BRA 0x40", "IADD3 R0", "@P1 BRA 0x10", "BRA 0x50", "MOV R2", "EXIT")
    assert sass.runs(looped, of_products, []) == [1, 1, 1, 1, 0, 1]
    rare = code("@P0 BRA 0x30", "MOV R4, 0x30", "CALL.REL 0x50", "STG.E R0", "EXIT", "FMUL R0", "RET R4")
    assert sass.runs(rare, of_products, []) == [1, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("opcode", "pipe", "cycles"),
    [
        ("FMNMX", "alu", 0.5),
        ("FFMA", "fma", 0.25),
        ("IMAD.WIDE", "fma", 0.5),
        ("LDS.128", "lds", 4),
        ("STS.U16", "lds", 1),
        ("LDSM.16.MT88.4", "lds", 4),
        ("LDG.E.64.CONSTANT", "ldg", 2),
        ("SHFL.BFLY", "shfl", 1),
        ("POPC", "mufu", 2),
        ("F2F.F64.F32", "f2f", 2),
        ("DADD", "fp64", 0.5),
        ("F2FP.F16.F32.PACK_AB", "alu", 0.5),
        ("HGMMA.64x256x16.F32", "tensor", 38.4),
        ("IGMMA.64x128x32.S8.S8", "tensor", 19.2),
        ("HMMA.16816.F32", "tensor", 2.4),
        ("REDG.E.ADD.64.STRONG.GPU", "atomics", 13.2),
        ("BAR.SYNC.DEFER_BLOCKING", "issue", 0.25),
        ("UIADD3", "issue", 0.25),
    ],
)
def test_what_an_instruction_costs(opcode, pipe, cycles):
    costs = pipes.costs(opcode)
    assert costs[pipe] == pytest.approx(cycles, rel=0.01) and costs["issue"] == 0.25
    assert set(costs) <= {"issue", "ldg", pipe}


def test_look_ups_conflict_and_gathers_take_longer():
    assert pipes.costs("LDS", conflicts=3.15)["lds"] == 3.15
    assert pipes.costs("LDS.128", conflicts=3.15)["lds"] == 4
    assert pipes.costs("LDG.E.128", gather=47)["ldg"] == pytest.approx(10.9, rel=0.01)
    assert pipes.costs("LDG.E.U8", gather=47)["ldg"] == 1


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "blocks"),
    [(128, 0, 8, 2), (129, 0, 8, 1), (32, 0, 4, 16), (32, 98_304, 4, 2), (32, 114_688, 4, 2), (24, 0, 1, 32)],
)
def test_programs_that_a_multiprocessor_holds(registers, shared, warps, blocks):
    assert pipes.blocks(registers, shared, warps) == blocks


TTGIR = """
#mma = #ttg.nvidia_mma<{versionMajor = 3, versionMinor = 0, warpsPerCTA = [8, 1], instrShape = [16, 256, 16]}>
  %1 = ttng.warp_group_dot %a, %b, %c : tensor<64x32xf16, #x> * !ttg.memdesc<> -> ROWSx256xf32, #mma>
"""


def test_warps_that_repeat_each_other_are_found():
    for rows, said in (("tensor<64", "8 warps of 16 rows in a product of 64"), ("tensor<128", "")):
        assert layouts.repeated(TTGIR.replace("ROWS", rows)) == said


SLOW = [
    ("_k", ["LDG.E.U16 R0, [R2.64]"], "", {}, 2, "1 loads of 2 bytes in a loop, where 16 are gathered"),
    ("_k", ["LDG.E.128 R0, [R2.64]", "LDG.E.U8 R0, [R2.64]"], "", {}, 2, ""),
    ("_l", ["LDG.E.U16 R0, [R2.64]"], "", {}, 2, ""),
    ("_l", ["STS.U16 [R0], R1"] * 9, "", {}, 2, "9 stores of 2 bytes into shared memory in a loop"),
    ("_l", ["STS.U16 [R0], R1"] * 8, "", {}, 2, ""),
    (
        "_l",
        ["NOP"],
        "8 warps of 16 rows in a product of 64",
        {},
        2,
        "warps repeat each other's work: 8 warps",
    ),
    ("_l", ["NOP"], "", {"wgmma": 4}, 1, "one program a multiprocessor, so that nothing runs"),
    ("_l", ["NOP"], "", {"wgmma": 4}, 2, ""),
    ("_l", ["NOP"], "", {}, 1, ""),
]


@pytest.mark.parametrize(("kernel", "loop", "layout", "counts", "blocks", "said"), SLOW)
def test_what_is_slow_is_a_problem_of_sm_90_unless_excused(
    monkeypatch, kernel, loop, layout, counts, blocks, said
):
    monkeypatch.setattr(meant, "MEANT", {"_k": meant.Meant("lds", "op", gathers=True)})
    row = replace(ROW, kernel=kernel, counts={"lds": 1, **counts}, blocks=blocks)
    looped = code(*loop, "@P0 BRA 0x0", "EXIT")
    found = meant.problem(row, looped, layout)
    assert found.startswith(said) and bool(found) == bool(said)
    assert meant.problem(row, code(*loop, "EXIT"), layout) == ("" if "in a loop" in said else found)
    assert meant.problem(replace(row, target="sm_80"), looped, layout) == ""
    for kind in ("gathers", "stores", "warps", "blocks"):
        monkeypatch.setattr(meant, "EXCUSED", [meant.Excuse(kernel, kind, "why", "BN=64")])
        excused = meant.problem(row, looped, layout)
        assert excused in ("", found)
        monkeypatch.setattr(meant, "EXCUSED", [meant.Excuse(kernel, kind, "why", "BN=32")])
        assert meant.problem(row, looped, layout) == found


def test_every_excuse_says_why_of_a_kernel_that_there_is():
    sources = "".join(path.read_text() for path in (ROOT / "kernels").glob("*.py"))
    for excuse in meant.EXCUSED:
        assert f"def {excuse.kernel}(" in sources and excuse.why
        assert excuse.kind in ("gathers", "stores", "warps", "blocks")


def test_every_case_that_is_modelled_is_one_of_the_roofline():
    from tools.roof.cases import cases

    known = {(case.op, case.name) for case in cases(model.ROWS)}
    assert set(model.LIMITS) <= known


@pytest.mark.full
def test_modelled_times_are_those_of_the_machine_code(tmp_path):
    """Decoding is bound by memory; loops other than stated are told of by name."""
    script = tmp_path / "script.py"
    script.write_text("""
from unittest import mock

from tools.gate import model
from tools.gate.work import WORK

first, second = model.times(["decode"])
assert first.kernel.pipe == "memory" and 0.99 < first.ratio < 1.05 and first.status == "ok", first
assert second.kernel.pipe != "memory" and second.launches == 1 and second.kernel.blocks > 1, second
with mock.patch.dict(WORK, _decode=WORK["_decode"]._replace(anchor="STG", nests=lambda c: [(7,)])):
    (_, wrong) = model.times(["decode"])
assert "_decode S=2" in wrong.problem and "0 outermost loops with an anchor, where 1" in wrong.problem, wrong
with mock.patch.dict(WORK, _decode=WORK["_decode"]._replace(anchor="STG", units=lambda c: c.BN)):
    (_, wrong) = model.times(["decode"])
assert "units of work in the code" in wrong.problem, wrong
with mock.patch.dict(WORK, _decode=WORK["_decode"]._replace(moved=lambda c: c.nothing)):
    (_, wrong) = model.times(["decode"])
assert "a parameter that it lacks: nothing" in wrong.problem, wrong
""")
    run = python(str(script), cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]


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


@pytest.mark.full
def test_samples_sizes_in_use_and_odd_sizes_reach_every_tile(tmp_path):
    """What --every asks after it has compiled; here nothing compiles."""
    script = tmp_path / "script.py"
    script.write_text("""
from unittest import mock

from tools import compile_gate
from tools.gate.build import _Recorder
from tools.gate.rows import TARGETS
from gpuzip.ops import OPS

with mock.patch.object(_Recorder, "compile", lambda *args, **kwargs: None):
    orders = [compile_gate.Order(target, op, True) for target in TARGETS for op in OPS]
    works = list(map(compile_gate.compile_op, orders))
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
