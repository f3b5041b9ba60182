"""Every line of a launcher runs for some sample, and test_ops runs every sample in the interpreter.

Where no kernel for the matrix units compiles, the simple forms run, and answer as their references do.
"""

import importlib
import inspect

import pytest
import torch

pytest.importorskip("triton")

from gpuzip.ops import OPS
from tests.launchers import (
    Everything,
    covering,
    launcher_of,
    launchers,
    lines_of,
    lines_run,
    module_of,
    no_kernel_runs,
    without_memory,
)
from tests.test_ops import check_agreement, for_each_sample, samples

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter stands in for a GPU")

WITH_TWO_FORMS = [name for name, op in OPS.items() if "launch_or(" in inspect.getsource(module_of(op))]
ONE_FORM = ("decode", "hamming_gather")  # they share a file with a kernel that has two


@pytest.mark.full
@pytest.mark.parametrize("name", WITH_TWO_FORMS)
def test_the_simple_form_gives_the_same_answers(name, monkeypatch):
    op, fallen = OPS[name], Everything()
    monkeypatch.setattr(importlib.import_module("gpuzip.kernels._launch"), "FALLEN", fallen)
    launch = launcher_of(op)
    for_each_sample(op, lambda args: check_agreement(op, args, launch(*args), op.reference(*args)))
    assert fallen.asked or name in ONE_FORM


FILES = sorted({op.kernel.partition(":")[0] for op in OPS.values()})
TARGETS = ["interpreter", "cuda 80", "cuda 90", "cuda 100", "hip gfx942"]


@pytest.mark.full
@pytest.mark.parametrize("file", FILES)
def test_samples_reach_every_line_of_the_launchers(file, monkeypatch):
    """Those that choose a tile for one kind of GPU are asked in its name; tiles have tests of their own."""
    module = importlib.import_module(file)
    codes, run = set(launchers(module)), set()
    calls = [
        (launcher_of(op), without_memory(args))
        for op in OPS.values()
        if op.kernel.partition(":")[0] == file
        for args in samples(op)
    ]

    def all_samples():
        for launch, args in calls:
            launch(*args)

    with no_kernel_runs():
        for target in TARGETS:
            monkeypatch.setattr(module, "compile_target", lambda target=target: target, raising=False)
            run |= lines_run(codes, all_samples)
        monkeypatch.setattr(importlib.import_module("gpuzip.kernels._launch"), "FALLEN", Everything())
        run |= lines_run(codes, all_samples)
    source = inspect.getsource(module).splitlines()
    missed = sorted(set().union(*map(lines_of, codes)) - run)
    assert not missed, "\n".join(f"{line}: {source[line - 1].strip()}" for line in missed)


def test_a_covering_leaves_out_samples_and_no_line():
    op = OPS["product_scan"]
    some, codes = covering(op, samples(op)), set(launchers(module_of(op)))

    def lines(numbers):
        def launch_all():
            for i in numbers:
                launcher_of(op)(*without_memory(samples(op)[i]))

        with no_kernel_runs():
            return lines_run(codes, launch_all)

    assert 3 < len(some) < len(samples(op)) / 2
    assert lines(some) == lines(range(len(samples(op))))
    assert any(samples(op)[i][0].shape[0] == 0 for i in some) or all(len(args[0]) for args in samples(op))
