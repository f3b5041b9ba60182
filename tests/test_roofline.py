"""What the roofline says without a GPU: floors, cases, files, targets."""

import csv
import importlib.util
from dataclasses import replace

import pytest
import torch

from bench.checkout import RESULTS, append
from gpuzip.ops import OPS
from tools.roof import floors
from tools.roof.cases import bound, cases, present, tasks, traffic
from tools.roof.floors import Roofs

H200 = Roofs(copy=4.3e12, half=790e12, int8=1.58e15, sms=132, clock=1.755e9)
HAS_TRITON = importlib.util.find_spec("triton") is not None
N = 10**8


def test_floors_of_an_h200():
    """Nanoseconds a vector, milliseconds a scan, from arithmetic done apart from this code."""
    code = {"N": 10**6, "D": 384, "itemsize": 4}
    assert floors.assign(H200, **code, M=48, K=256, out=48) == pytest.approx(3.07e-3, rel=0.01)
    assert floors.assign(H200, **code, M=96, K=16, out=48) == pytest.approx(0.38e-3, rel=0.01)
    assert floors.kmeans_step(H200, 10**6, 384, 48, 256) == pytest.approx(3.07e-3, rel=0.01)
    assert floors.rotated(H200, 10**6, 384, 48, 4) == pytest.approx(1.12e-3, rel=0.01)
    assert floors.rabitq_encode(H200, 10**6, 384, 4, 24) == pytest.approx(1.86e-3, rel=0.01)
    assert floors.beam_search(H200, 1, 24, 256, 5) == pytest.approx(0.334e-6, rel=0.01)
    assert floors.moved(H200, 10**6 * (48 + 4 * 384)) == pytest.approx(0.37e-3, rel=0.01)
    assert floors.table_scan(H200, N, 48, 256, 1, 48) == pytest.approx(2.04e-3, rel=0.01)
    assert floors.table_scan(H200, N, 96, 16, 1, 48) == pytest.approx(1.81e-3, rel=0.01)
    assert floors.product_scan(H200, N, 384, 16, 48) == pytest.approx(7.1e-3, rel=0.01)
    assert floors.product_scan(H200, N, 384, 1024, 48) == pytest.approx(99.5e-3, rel=0.01)
    assert floors.hamming_scan(H200, N, 1, 48) == pytest.approx(1.12e-3, rel=0.01)
    assert floors.hamming_scan(H200, N, 1024, 48) == pytest.approx(50e-3, rel=0.01)


def test_an_h200_does_what_its_data_sheet_says():
    assert H200.compares == pytest.approx(14.8e12, rel=0.01)
    assert H200.popcounts == pytest.approx(3.7e12, rel=0.01)
    assert H200.lookups(256) == pytest.approx(2.36e12, rel=0.01)
    assert H200.lookups(16) == pytest.approx(5.3e12, rel=0.01)


def test_a_faster_pipe_never_makes_a_floor_higher():
    for floor_of in [*(case.floor for case in cases(10**6)), *(task.floor for task in tasks(10**6))]:
        floor = floor_of(H200)
        assert floor > 0
        for name in ("copy", "half", "int8", "clock"):
            faster = replace(H200, **{name: 2 * getattr(H200, name)})
            assert floor / 2 <= floor_of(faster) <= floor


def test_every_case_fits_the_schema_of_its_operator():
    """Arguments without memory go through the operator's own shape rule."""
    found = list(present(cases(N)))
    assert {case.op for case in found} >= {"assign", "decode", "adc_scan", "topk", "pack_bits"}
    for case in found:
        op = OPS[case.op]
        assert traffic(op, bound(op, case.make("meta"))) > 0


def test_traffic_is_what_goes_in_and_out():
    case = next(case for case in cases(10**6) if case.op == "decode")
    op = OPS["decode"]
    arguments = bound(op, case.make("meta"))
    centroids = next(a for a in arguments if isinstance(a, torch.Tensor) and a.ndim == 3)
    assert traffic(op, arguments) == 10**6 * (48 + 384 * 4) + 4 * centroids.numel()


def test_a_case_with_an_argument_too_many_or_too_few_is_an_error():
    with pytest.raises(TypeError, match="topk has no argument rows"):
        bound(OPS["topk"], {"scores": 1, "k": 1, "rows": 1})
    with pytest.raises(TypeError, match="topk needs k"):
        bound(OPS["topk"], {"scores": 1})


def test_names_of_cases_are_one_of_a_kind():
    names = [(case.op, case.name) for case in cases(N)] + [(task.kind, task.name) for task in tasks(N)]
    assert len(set(names)) == len(names)


@pytest.mark.skipif(not HAS_TRITON, reason="rows name triton's version")
class TestResults:
    def test_every_target_names_a_case_and_a_column(self):
        from tools.roof.results import TARGETS

        names = {(case.op, case.name) for case in cases(N)} | {(task.kind, task.name) for task in tasks(N)}
        assert {(target.kernel, target.case) for target in TARGETS} <= names

    def test_verdicts_are_of_what_was_measured(self):
        from tools.roof.results import TARGETS, verdicts

        lines = verdicts([], "NVIDIA H200")
        assert len(lines) == len(TARGETS)
        assert all(line.endswith("not measured") for line in lines)
        row = {"kernel": "k-means", "case": "N=65536 M=48 K=256 25 iterations", "seconds": 0.0151}
        assert [line[:4] for line in verdicts([row], "NVIDIA H200")].count("FAIL") == 1
        assert [line[:4] for line in verdicts([row | {"seconds": 0.0149}], "NVIDIA H100")].count("PASS") == 1
        other = verdicts([row], "NVIDIA L4")
        assert not any(line.startswith(("PASS", "FAIL")) for line in other)
        assert "the target is for H100 and H200" in "".join(other)

    def test_rows_are_appended_under_one_head(self, tmp_path):
        path = tmp_path / "rows.csv"
        append(path, [{"kernel": "a", "seconds": 1 / 3, "tile": None}])
        append(path, [{"kernel": "b", "seconds": 2.0, "tile": "x"}])
        with path.open(newline="") as file:
            assert list(csv.reader(file)) == [
                ["kernel", "seconds", "tile"],
                ["a", "0.333333", ""],
                ["b", "2", "x"],
            ]
        with pytest.raises(ValueError, match="has the columns"):
            append(path, [{"kernel": "c"}])
        assert len(path.read_text().splitlines()) == 3

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is something to measure")
    def test_without_a_gpu_nothing_is_measured_or_written(self, monkeypatch, capsys):
        from tools import roofline

        monkeypatch.setattr("sys.argv", ["roofline"])
        file = RESULTS / roofline.NAME
        before = file.exists() and file.read_bytes()
        assert roofline.main() == 2
        assert "Nothing was measured" in capsys.readouterr().out
        assert (file.exists() and file.read_bytes()) == before
