"""Nothing in a search waits for a GPU while a CUDA graph is recorded, and the answers stay the same."""

import importlib
import importlib.util
from unittest import mock

import pytest
import torch

from gpuzip.codecs import from_spec
from gpuzip.ops import OPS
from tests.pretence import WaitedError, a_gpu, watched

METRICS = ("l2", "ip", "cosine")
SPECS = (
    *(
        "PQ8x6",
        "PQ8x4",
        "OPQ8,PQ8x4",
        "PCA24,PQ8x4",
        "SQ8",
        "SQ4",
        "SQ6",
        "SQfp16",
        "SQbf16",
        "Binary",
        "LSHt",
    ),
    *("LloydMax2", "MixedLloydMax1.5", "RQ2x4", "PRQ2x2x4", "RaBitQ", "RaBitQ4"),
)
N = 5000  # enough for every path that looks for candidates


@pytest.fixture(scope="module")
def rows():
    return torch.randn(N, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def codes_of(rows):
    made = {}

    def codes(spec):
        if spec not in made:
            codec = from_spec(spec).fit(rows)
            made[spec] = codec.encode(rows)
        return made[spec]

    return codes


def check(codes, queries, metric, **arguments):
    """The first search learns of the codes what is kept with them, as the README asks for."""
    want = codes.search(queries, 10, metric, **arguments)
    with a_gpu(is_capturing=True), watched(may_wait=False):
        got = codes.search(queries, 10, metric, **arguments)
    # A GPU rotates, and sums, otherwise: a distance is the difference of squares of lengths of about 11.
    torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=2.0**-21 * 11**2)
    assert float((got[1] == want[1]).double().mean()) > 0.98


@pytest.mark.parametrize("Q", [1, pytest.param(3, marks=pytest.mark.full), 33])
@pytest.mark.parametrize("spec", SPECS)
def test_a_search_is_recorded(codes_of, rows, spec, Q):
    codes = codes_of(spec)
    queries = rows[7 : 7 + Q] + 0.1
    for metric in codes.codec.metrics:
        check(codes, queries, metric)
    mask = torch.arange(N) % 3 != 0
    check(codes, queries, "cosine", mask=mask)


@pytest.mark.parametrize("Q", [1, 33])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spec", ["PQ8x4", "RaBitQ4", "Binary"])
def test_candidates_are_rescored_in_a_graph(codes_of, rows, spec, metric, Q):
    codes, queries = codes_of(spec), rows[7 : 7 + Q] + 0.1
    coarse = {"Binary": ["hamming"], "RaBitQ4": ["plane"]}.get(spec, [])
    for candidates in (None, *coarse):
        for store in (rows, rows.half(), codes_of("SQ8"), codes_of("RaBitQ4")):
            if store is codes and candidates is None:  # refused: it finds the same again
                continue
            check(codes, queries, metric, rescore=store, candidates=candidates)


def test_what_waits_is_seen(codes_of, rows):
    """Not under capture a search asks whether its queries are finite; the test would say so."""
    codes = codes_of("PQ8x4")
    with (
        a_gpu(is_capturing=False),
        watched(may_wait=False),
        pytest.raises(WaitedError, match="_local_scalar"),
    ):
        codes.search(rows[:3], 10)
    for wait in (
        lambda: rows[0].tolist(),
        lambda: rows[rows[:, 0] > 0],
        lambda: torch.tensor([1, 2], device=rows.device),
        lambda: torch.arange(3),
        lambda: rows[0].unique(),
    ):
        with watched(may_wait=False), pytest.raises(WaitedError):
            wait()


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize("name", sorted(OPS))
def test_no_launcher_waits(name):
    """Launchers run on tensors without memory; kernels are not compiled."""
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    module, _, launcher = OPS[name].kernel.partition(":")
    launch = getattr(importlib.import_module(module), launcher)
    nothing = mock.Mock(return_value=None)
    with (
        mock.patch.object(JITFunction, "run", nothing),
        mock.patch.object(InterpretedFunction, "run", nothing),
    ):
        for arguments in OPS[name].samples("cpu"):
            there = [_without_memory(value) for value in arguments]
            with watched(may_wait=False):
                launch(*there)
    assert nothing.called


def _without_memory(value):
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
