"""Every operator against its reference, on every sample, and as a citizen of torch."""

import importlib.util

import pytest
import torch
from torch import Tensor

from gpuzip.ops import OPS, Op
from gpuzip.ops._lanes import use_loops

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CASES = [
    pytest.param(op, i, id=f"{op.name}-{i}")
    for op in OPS.values()
    for i in range(len(list(op.samples("cpu"))))
]
HAS_NUMBA = importlib.util.find_spec("numba") is not None
CPU_LANES = [
    pytest.param(op, i, lane, id=f"{op.name}-{i}-{lane}")
    for op in OPS.values()
    for i in range(len(list(op.samples("cpu"))))
    for lane in ("torch", *(["loops"] if HAS_NUMBA and op.loops else []))
]
ROADS = [pytest.param(*case.values, "cpu", id=case.id) for case in CPU_LANES] + [
    pytest.param(*case.values, "", "cuda", id=f"{case.id}-cuda") for case in CASES if len(DEVICES) > 1
]
HAS_TRITON = importlib.util.find_spec("triton") is not None


def sample(op: Op, i: int, device: str) -> tuple:
    return list(op.samples(device))[i]


def outputs(result) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def check_agreement(op: Op, args: tuple, got, want) -> None:
    """The three families of DESIGN: exact, nearest (an index as near), close (float32 rounding)."""
    for a, b in zip(outputs(got), outputs(want), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        a, b = a.cpu(), b.cpu()
        if op.agreement == "exact" or not (a.dtype.is_floating_point or op.agreement == "nearest"):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        elif op.agreement == "close":
            torch.testing.assert_close(a, b)
        else:
            if op.name == "encode":  # codes of nbits bits, of M sub-spaces
                M, K, _ = args[1].shape
                a, b = (OPS["unpack_bits"].reference(packed, M, K.bit_length() - 1) for packed in (a, b))
            check_nearest(args[0].cpu().double(), args[1].cpu().double(), a.long(), b.long())


def check_nearest(x: Tensor, centroids: Tensor, got: Tensor, want: Tensor) -> None:
    M, _, S = centroids.shape
    sub, every = x.view(-1, M, S), torch.arange(M)
    chosen, nearest = ((sub - centroids[every, labels]).square().sum(-1) for labels in (got, want))
    assert bool((chosen - nearest <= 1e-5 * (nearest + sub.square().sum(-1))).all())


@pytest.mark.parametrize(("op", "i", "lane", "device"), ROADS)
def test_matches_its_reference(op, i, lane, device):
    args = sample(op, i, device)
    want = op.reference(*[a.cpu() if isinstance(a, Tensor) else a for a in args])
    with use_loops(lane == "loops"):
        check_agreement(op, args, op.call(*args), want)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_opcheck(op, device):
    for args in list(op.samples(device))[:6]:
        torch.library.opcheck(op.call, args)


@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_compiles_without_a_graph_break(op):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda *args: [out + 0 for out in outputs(op.call(*args))], fullgraph=True, backend="aot_eager"
    )
    args = sample(op, 2, "cpu")
    check_agreement(op, args, tuple(compiled(*args)), op.call(*args))


@pytest.mark.parametrize(("op", "i", "lane", "device"), ROADS)
def test_two_runs_are_the_same_bytes(op, i, lane, device):
    args = sample(op, i, device)
    with use_loops(lane == "loops"):
        for a, b in zip(outputs(op.call(*args)), outputs(op.call(*args)), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("op", "i", "lane"), CPU_LANES)
def test_any_number_of_threads_gives_the_same_bytes(op, i, lane):
    args, threads = sample(op, i, "cpu"), torch.get_num_threads()
    try:
        with use_loops(lane == "loops"):
            want = outputs(op.call(*args))
            for count in (1, 3):
                torch.set_num_threads(count)
                for a, b in zip(outputs(op.call(*args)), want, strict=True):
                    assert torch.equal(a, b)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(not HAS_TRITON or torch.cuda.is_available(), reason="the interpreter stands in for a GPU")
@pytest.mark.parametrize(("op", "i"), CASES)
def test_kernel_in_the_interpreter(op, i, poison):
    module, _, launcher = op.kernel.partition(":")
    args = sample(op, i, "cpu")
    kernel = getattr(importlib.import_module(module), launcher)
    check_agreement(op, args, kernel(*args), op.reference(*args))


@pytest.mark.skipif(not HAS_TRITON or torch.cuda.is_available(), reason="the interpreter stands in for a GPU")
@pytest.mark.parametrize("op", OPS.values(), ids=OPS)
def test_kernel_takes_strided_inputs(op, poison):
    module, _, launcher = op.kernel.partition(":")
    args = sample(op, 3, "cpu")
    kernel = getattr(importlib.import_module(module), launcher)
    strided = [spread(a) if isinstance(a, Tensor) else a for a in args]
    check_agreement(op, args, kernel(*strided), op.reference(*args))
    check_agreement(op, args, op.call(*strided), op.reference(*args))


def spread(t: Tensor) -> Tensor:
    """The same values, two apart in memory in every dimension, with other values between."""
    wide = torch.full([2 * n for n in t.shape], 77, dtype=t.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in t.shape)]
    return view.copy_(t)


@pytest.fixture
def poison(monkeypatch):
    """Fresh outputs hold values that no right answer holds, so an element left unwritten shows."""
    plain = torch.empty

    def poisoned(*args, **kwargs):
        out = plain(*args, **kwargs)
        return (
            out.fill_(float("nan"))
            if out.dtype.is_floating_point
            else out.fill_(0xA5 if out.dtype == torch.uint8 else -91)
        )

    monkeypatch.setattr(torch, "empty", poisoned)
