"""rows_by_id: the same rows as decode, and None wherever torch must see an operator."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from gpuzip.codecs import LloydMaxQuantizer, ProductQuantizer
from gpuzip.nn import QuantizedEmbedding
from gpuzip.ops import OPS, decode, pack_bits, rows_by_id, use_loops
from gpuzip.ops._samples import generator, random_codes

pytest.importorskip("numba")

WRONG = [-1, 50, 2**40, -(2**63), 2**63 - 1]
SHAPES = [(1, 1, 1), (1, 5, 1), (1, 37, 1), (1, 64, 1), (1, 99, 1), (3, 1, 4), (2, 3, 1), (5, 2, 3)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def table(nbits: int, C: int, share: int, S: int, dtype: torch.dtype, N: int = 50) -> tuple[Tensor, Tensor]:
    packed = pack_bits(random_codes(N, C * share, 1 << nbits), nbits)
    return packed, torch.randn(C, 1 << nbits, S, generator=generator(C)).to(dtype)


def check(packed: Tensor, codebook: Tensor, share: int, ids: Tensor) -> None:
    """Equal to the reference by bytes, where there is a result, with the row of one id replaced."""
    D = codebook.shape[0] * share * codebook.shape[2]
    padding_row = torch.randn(D, generator=generator(D)).to(codebook.dtype)
    got = rows_by_id(packed, codebook, ids, D, 7, padding_row)
    want = OPS["decode"].reference(packed, codebook, ids, share)
    want[ids == 7] = padding_row
    assert got is not None or ids.numel() * D > 1 << 13
    assert got is None or torch.equal(got.view(torch.uint8), want.view(torch.uint8))


@pytest.mark.parametrize("nbits", [1, 2, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_reference(nbits, dtype):
    for (C, share, S), R in product(SHAPES, (1, 2, 41, 300)):
        ids = torch.randint(0, 50, (R,), generator=generator(R))
        ids[-1] = 49  # the last row, past whose end nothing may be read
        check(*table(nbits, C, share, S, dtype), share, ids)


@pytest.mark.parametrize("S", [1, 2, 3, 4, 8, 9, 16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_copies_entries_of_every_size(S, dtype):
    check(*table(6, 2, 2, S, dtype), 2, torch.tensor([3, 7, 49, 3]))


def test_the_ways_of_many_rows_equal_the_reference():
    """Several blocks, and an output that numpy allocates."""
    packed, codebook = table(4, 1, 384, 1, torch.float32, 200)
    ids = torch.randint(0, 200, (23_000,), generator=generator())
    want = OPS["decode"].reference(packed, codebook, ids, 384)
    for R in (1, 2731, 5000, 23_000):
        got = rows_by_id(packed, codebook, ids[:R], 384)
        assert got is not None and torch.equal(got, want[:R])


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("nbits", [4, 8])
def test_refuses_ids_that_are_no_rows_wherever_they_stand(wrong, nbits):
    packed, codebook = table(nbits, 1, 384, 1, torch.float32)
    for R, at in [(1, 0), (9, 8), (6000, 5999), (6000, 0)]:
        ids = torch.zeros(R, dtype=torch.int64)
        ids[at] = wrong
        with pytest.raises(IndexError, match="index out of range in self"):
            rows_by_id(packed, codebook, ids, 384)
        assert not decode(packed, codebook, ids, 384)[at].any()  # the operator's zeros


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (3, 4)])
def test_keeps_the_shape_of_ids(shape):
    packed, codebook = table(4, 1, 24, 1, torch.float16)
    got = rows_by_id(packed, codebook, torch.ones(shape, dtype=torch.int64), 24)
    assert got is not None and got.shape == (*shape, 24)


class SeesFunctions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class SeesOperators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_leaves_to_the_operator_what_torch_watches():
    packed, codebook = table(4, 1, 24, 1, torch.float32)
    ids = torch.tensor([3, 4])
    assert rows_by_id(packed, codebook, ids, 24) is not None
    with SeesFunctions():
        assert rows_by_id(packed, codebook, ids, 24) is None
    module = QuantizedEmbedding(50, 24)
    with SeesOperators() as mode:
        rows = module(ids)
    assert "gpuzip.decode.default" in mode.seen and torch.equal(rows, module(ids))

    def traced(some: Tensor) -> Tensor:
        assert rows_by_id(packed, codebook, some, 24) is None
        return some

    torch.jit.trace(traced, ids, check_trace=False)
    assert rows_by_id(packed, codebook.clone().requires_grad_(), ids, 24) is None
    assert rows_by_id(packed, codebook, ids[::2], 24) is not None  # one id is contiguous
    assert rows_by_id(packed, codebook, ids.repeat(3)[::2], 24) is None
    assert rows_by_id(packed[:, ::2], codebook, ids, 12) is None
    assert rows_by_id(packed, codebook, ids.to("meta"), 24) is None
    with use_loops(False):
        assert rows_by_id(packed, codebook, ids, 24) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_transforms_go_by_the_operator():
    packed, codebook = table(4, 1, 24, 1, torch.float32)
    ids = torch.tensor([3, 4, 3])
    want = OPS["decode"].reference(packed, codebook, ids, 24)

    def rows(entries: Tensor) -> Tensor:
        found = rows_by_id(packed, entries, ids, 24)
        assert found is None
        return torch.zeros(1)

    torch.vmap(rows)(torch.stack([codebook, codebook]))
    torch.func.jvp(rows, (codebook,), (codebook,))
    with torch.autograd.forward_ad.dual_level():
        rows(torch.autograd.forward_ad.make_dual(codebook, codebook))
    module = QuantizedEmbedding.from_pretrained(torch.randn(50, 24, generator=generator()))
    tangent = torch.func.jvp(
        lambda entries: torch.func.functional_call(module, {"codebook": entries}, (ids,)),
        (module.codebook,),
        (module.codebook,),
    )[1]
    assert torch.equal(tangent, module(ids)) and want.shape == tangent.shape  # rows are linear in the entries


def test_a_module_sees_every_change_of_its_state():
    x = torch.randn(200, 24, generator=generator())
    module, other = (
        QuantizedEmbedding.from_pretrained(x, padding_idx=2),
        QuantizedEmbedding.from_pretrained(-x),
    )
    ids = torch.tensor([[2, 7], [199, 0]])
    assert torch.equal(module(ids), module.to_dense()(ids))
    module.load_state_dict(other.state_dict() | {"padding_row": torch.ones(24)})
    assert torch.equal(module(ids)[0, 0], torch.ones(24)) and torch.equal(module(ids)[1], other(ids)[1])
    module.codebook.mul_(2)
    assert torch.equal(module(ids)[1], 2 * other(ids)[1])
    module.half()
    assert module(ids).dtype == torch.float16 and torch.equal(module(ids), module.to_dense()(ids))
    module.codes.data = module.codes.flip(0)
    assert torch.equal(module(ids)[1, 1], module.weight[0])


def test_many_threads_get_the_same_rows():
    module = QuantizedEmbedding.from_pretrained(torch.randn(200, 96, generator=generator()))
    ids = [torch.randint(0, 200, (n,), generator=generator(n)) for n in range(1, 60)]
    want = [module.weight[some] for some in ids]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert all(map(torch.equal, pool.map(module, ids), want))


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_looks_up_rows():
    program = (
        "import os, torch; from gpuzip.nn import QuantizedEmbedding; torch.set_num_threads(1)\n"
        "m = QuantizedEmbedding(200, 96); ids = torch.arange(200); want = m(ids)\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if torch.equal(m(ids), want) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=600)


@pytest.mark.full
def test_equals_the_reference_without_the_instructions_of_this_cpu():
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    tests = f"{Path(__file__)}::test_equals_the_reference"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", tests]
    subprocess.run(command, env=environment, check=True, timeout=600, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize(
    "codec", [LloydMaxQuantizer(4), LloydMaxQuantizer(3, per="dim"), ProductQuantizer(6, 4)]
)
def test_rows_of_codes_are_those_of_decode(codec):
    x = torch.randn(300, 24, generator=generator())
    codes = codec.fit(
        x, **({"min_points_per_centroid": 1} if isinstance(codec, ProductQuantizer) else {})
    ).encode(x)
    every = codes.decode()
    for ids in (
        [5],
        [-1, 0, 299],
        torch.tensor([3]),
        torch.arange(300).flip(0),
        torch.tensor([], dtype=torch.int64),
    ):
        assert torch.equal(codes.rows(ids), every[torch.as_tensor(ids)])
    for wrong in ([300], [-301, 4], list(range(301))):
        with pytest.raises(IndexError, match="ids must be from -300 to 299"):
            codes.rows(wrong)
