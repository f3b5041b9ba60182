"""Every line of every launcher runs on some sample, in the tensor-core form and in the simple one."""

import importlib
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from gpuzip.ops import OPS
from tests.test_ops import check_agreement

KERNELS = Path(__file__).parents[1] / "kernels"

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the interpreter stands in for a GPU")


class Everything(dict):
    """As if no kernel for the matrix units compiled."""

    def __contains__(self, key):
        return True


def module_of(op):
    return importlib.import_module(op.kernel.partition(":")[0])


def launch(op, args):
    return getattr(module_of(op), op.kernel.partition(":")[2])(*args)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_the_simple_form_gives_the_same_answers(op, monkeypatch):
    launcher = importlib.import_module("gpuzip.kernels._launch")
    monkeypatch.setattr(launcher, "FALLEN", Everything())
    for args in op.samples("cpu"):
        check_agreement(op, args, launch(op, args), op.reference(*args))
