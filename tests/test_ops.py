"""Every operator against its reference, on every sample, and as a citizen of torch."""

import importlib.util
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from gpuzip.ops import OPS, Op
from gpuzip.ops._dispatch import use_loops
from tests.launchers import covering, launcher_of

HAS_NUMBA = importlib.util.find_spec("numba") is not None
HAS_TRITON = importlib.util.find_spec("triton") is not None
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
CPU_LANES = [
    pytest.param(op, lane, id=f"{op.name}-{lane}")
    for op in OPS.values()
    for lane in ("torch", *(["loops"] if HAS_NUMBA and op.loops else []))
]
needs_the_interpreter = pytest.mark.skipif(
    not HAS_TRITON or torch.cuda.is_available(), reason="the interpreter stands in for a GPU"
)
each_op = pytest.mark.parametrize("op", OPS.values(), ids=OPS)


@cache
def samples(op: Op) -> list[tuple]:
    return list(op.samples("cpu"))


def for_each_sample(
    op: Op, check: Callable[[tuple], object], device: str = "cpu", numbers: list[int] | None = None
) -> None:
    """Run a check on all samples of an operator, or on those with these numbers; name the one that fails."""
    for i in range(len(samples(op))) if numbers is None else numbers:
        try:
            check(tuple(a.to(device) if isinstance(a, Tensor) else a for a in samples(op)[i]))
        except Exception as error:
            raise AssertionError(f"{op.name}, sample {i}: {error}") from error


def outputs(result) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def check_agreement(op: Op, args: tuple, got, want) -> None:
    """The three ways to agree: exact, nearest (an index as near), close (float32 rounding)."""
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


def check_same_bytes(got, want) -> None:
    for a, b in zip(outputs(got), outputs(want), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("op", "lane"), CPU_LANES)
def test_matches_its_reference_with_any_number_of_threads(op, lane):
    """Two runs give the same bytes, whatever the number of threads."""
    threads = torch.get_num_threads()

    def check(args: tuple) -> None:
        with use_loops(lane == "loops"):
            got = op.call(*args)
            for count in (1, 3):
                torch.set_num_threads(count)
                check_same_bytes(op.call(*args), got)
        torch.set_num_threads(threads)
        check_agreement(op, args, got, op.reference(*args))

    try:
        for_each_sample(op, check)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@each_op
def test_a_gpu_matches_the_reference_and_repeats_itself(op):
    def check(args: tuple) -> None:
        got = op.call(*args)
        check_same_bytes(op.call(*args), got)
        want = op.reference(*[a.cpu() if isinstance(a, Tensor) else a for a in args])
        check_agreement(op, args, got, want)

    for_each_sample(op, check, "cuda")


@pytest.mark.parametrize("device", DEVICES)
@each_op
def test_opcheck(op, device):
    for_each_sample(op, lambda args: torch.library.opcheck(op.call, args), device, [1])


@pytest.mark.full
@pytest.mark.parametrize("device", DEVICES)
@each_op
def test_opcheck_of_more_samples(op, device):
    for_each_sample(op, lambda args: torch.library.opcheck(op.call, args), device, list(range(6)))


def _backward(call, args: tuple, at: int):
    return call(*[a.clone().requires_grad_() if i == at else a for i, a in enumerate(args)])


def _forward(call, args: tuple, at: int):
    def by_one(value: Tensor):
        return call(*args[:at], value, *args[at + 1 :])

    return torch.func.jvp(by_one, (args[at],), (torch.ones_like(args[at]),))


def _dual(call, args: tuple, at: int):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(args[at], torch.ones_like(args[at]))
        result = call(*args[:at], dual, *args[at + 1 :])
        assert all(forward_ad.unpack_dual(out).tangent is None for out in outputs(result))
        return result


@pytest.mark.parametrize("differentiate", [_backward, _forward, _dual])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch.func.jvp
@each_op
def test_a_derivative_of_floats_is_never_silently_zero(op, differentiate):
    args = next(a for a in samples(op)[1:] if all(part.numel() for part in a if isinstance(part, Tensor)))
    plain = outputs(op.call(*args))
    for at, arg in enumerate(args):
        if not _is_float(arg):
            continue
        if any(out.is_floating_point() for out in plain):
            with pytest.raises(NotImplementedError, match=f"gpuzip::{op.name}: .*no derivative"):
                differentiate(op.call, args, at)
        elif differentiate is not _forward:  # whole numbers are constants, as those of torch.argmax
            got = outputs(differentiate(op.call, args, at))
            assert not any(out.requires_grad for out in got)
            check_same_bytes(got, plain)
    with torch.no_grad():
        wanted = [a.clone().requires_grad_() if _is_float(a) else a for a in args]
        check_same_bytes(op.call(*wanted), plain)


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


@each_op
def test_compiles_without_a_graph_break(op):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda *args: [out.clone() for out in outputs(op.call(*args))], fullgraph=True, backend="aot_eager"
    )
    args = samples(op)[2]
    check_agreement(op, args, tuple(compiled(*args)), op.call(*args))


LONG = {
    "encode",
    "hamming_scan",
    "kmeans_step",
    "lloyd",
    "rabitq_encode",
    "scalar_scan",
}  # in the interpreter


@needs_the_interpreter
@pytest.mark.parametrize(
    "op",
    [pytest.param(op, id=name, marks=pytest.mark.full if name in LONG else ()) for name, op in OPS.items()],
)
def test_kernel_in_the_interpreter_on_samples_that_reach_all_of_it(op, poison):
    interpreted(op, covering(op, samples(op)))


@pytest.mark.full
@needs_the_interpreter
@each_op
def test_kernel_in_the_interpreter_on_every_sample(op, poison):
    interpreted(op)


def interpreted(op: Op, numbers: list[int] | None = None) -> None:
    kernel = launcher_of(op)
    for_each_sample(
        op, lambda args: check_agreement(op, args, kernel(*args), op.reference(*args)), numbers=numbers
    )


@needs_the_interpreter
@each_op
def test_kernel_takes_strided_inputs(op, poison):
    args, kernel = small_sample(op), launcher_of(op)
    strided = [spread(a) if isinstance(a, Tensor) else a for a in args]
    check_agreement(op, args, kernel(*strided), op.reference(*args))
    check_agreement(op, args, op.call(*strided), op.reference(*args))


def small_sample(op: Op) -> tuple:
    """The smallest sample whose tensors all have several rows."""
    tensors = [[a for a in args if isinstance(a, Tensor)] for args in samples(op)]
    sizes = {
        i: sum(a.numel() for a in some) for i, some in enumerate(tensors) if all(len(a) > 1 for a in some)
    }
    return samples(op)[min(sizes, key=sizes.__getitem__)]


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
