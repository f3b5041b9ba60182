"""Rows by id in one compiled call: the bits of decode(), and other code wherever torch must see operators."""

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import gpuzip
from gpuzip import (
    BinaryQuantizer,
    HalfQuantizer,
    LloydMaxQuantizer,
    ProductQuantizer,
    RaBitQuantizer,
    ResidualQuantizer,
    Rotation,
    ScalarQuantizer,
)
from gpuzip.ops import use_loops
from gpuzip.ops._samples import generator
from gpuzip.ops.row_reader import half_reader, sum_reader

pytest.importorskip("numba")

N = 90
CODECS = [
    *(ProductQuantizer(m=6, nbits=nbits) for nbits in (1, 4, 6)),
    ProductQuantizer(m=6, nbits=5, rotation="balanced"),
    *(ScalarQuantizer(bits=bits) for bits in (1, 2, 3, 4, 5, 7, 8)),
    *(ScalarQuantizer(bits=bits, signed=True, per="tensor") for bits in (3, 4, 8)),
    BinaryQuantizer(),
    BinaryQuantizer("median", rotation="pca"),
    LloydMaxQuantizer(4),
    LloydMaxQuantizer(3, per="dim", rotation="hadamard"),
    LloydMaxQuantizer(8, rotation=Rotation("hadamard", dims=24)),
    *(RaBitQuantizer(bits) for bits in (1, 2, 5, 8)),
    RaBitQuantizer(4, rotation=None),
    ResidualQuantizer(3, nbits=5),
    ResidualQuantizer(2, nbits=3, nsplits=3),
    HalfQuantizer(),
    HalfQuantizer("bfloat16", rotation="random"),
]


def made(codec, d=30):
    x = torch.randn(N, d, generator=generator(d)) * torch.linspace(0.1, 3, d)
    return codec.fit_quietly(x).encode(x)


@pytest.fixture(params=CODECS, ids=repr)
def codes(request):
    return made(request.param)


def reader(codes):
    return codes.codec.row_reader(codes.packed.raw)


def test_rows_have_the_bits_of_decode(codes):
    every = codes.decode()
    assert reader(codes)(torch.tensor([3])) is not None
    with use_loops(False):
        assert torch.equal(codes.decode(), every)
    for ids in ([0], [-1, 5, -N], [N - 1] * 3, range(N), []):
        index = torch.tensor(ids, dtype=torch.int64)
        for given in (ids, index, index.int(), index.numpy(), index.repeat_interleave(2)[::2]):
            found = codes.rows(given)
            assert torch.equal(found, every[index]) and found.dtype == every.dtype
        with use_loops(False):
            assert torch.equal(codes.rows(ids), every[index])


def test_ids_that_are_no_rows_are_refused_by_name(codes):
    for wrong in ([N], [0, -N - 1], [2**40], [-(2**63)], [5] * 9 + [2**63 - 1]):
        assert reader(codes)(torch.tensor(wrong)) is None
        for given in (wrong, torch.tensor(wrong)):
            with pytest.raises(IndexError, match=rf"Codes\.rows: ids must be from -{N} to {N - 1}"):
                codes.rows(given)
    with pytest.raises(IndexError, match="got"):
        codes.rows(np.array([2**64 - 1, 2**63], np.uint64))
    for tensor in (torch.ones(N, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.int64), torch.tensor(3)):
        with pytest.raises(TypeError, match="a list or tensor of row numbers"):
            codes.rows(tensor)
    with pytest.raises(TypeError, match="ids"):
        codes.rows(torch.tensor([1.0]))


def test_half_rows_are_narrowed():
    codes = gpuzip.Codes(*(made(ScalarQuantizer()).codec, made(ScalarQuantizer()).data), torch.float16)
    assert codes.rows(torch.tensor([4])).dtype == torch.float16
    assert torch.equal(codes.rows(torch.tensor([4])), codes.decode()[4:5])


def test_bytes_that_change_in_place_are_read(codes):
    ids = torch.tensor([7])
    before = codes.rows(ids)
    data = codes.packed.raw
    for part in getattr(data, "parts", (data,)):
        part[7] = part[8].clone()
    assert torch.equal(codes.rows(ids), codes.decode()[8:9]) and not torch.equal(codes.rows(ids), before)


def test_codes_in_other_memory_are_left_to_other_code():
    codes = made(LloydMaxQuantizer(4))
    read = reader(codes)
    ids, want = torch.tensor([7]), codes.decode()
    codes.packed.raw.data = codes.packed.raw.clone()
    assert read(ids) is None and torch.equal(codes.rows(ids), want[7:8])


@pytest.mark.parametrize("d", [1, 7, 64, 511, 513, 1100])
@pytest.mark.parametrize("codec", [BinaryQuantizer(), *(RaBitQuantizer(b, rotation=None) for b in (1, 3))])
def test_bits_of_every_width(codec, d):
    codes = made(codec, d)
    with use_loops(False):
        want = codes.decode()
    assert torch.equal(reader(codes)(torch.arange(N)), want) and torch.equal(codes.decode(), want)
    some = codes[torch.tensor([9, 4])]
    assert torch.equal(some.rows(torch.tensor([1, -2])), want[[4, 9]])  # of planes that lie in one matrix


@pytest.mark.parametrize("nbits", [9, 11, 16])
def test_codes_that_lie_in_three_bytes(nbits):
    codebooks = torch.randn(1, 3, 1 << nbits, 5, generator=generator())
    labels = torch.randint(0, 1 << nbits, (20, 3), generator=generator())
    packed = gpuzip.ops.pack_bits(labels.int(), nbits)
    read = sum_reader(packed, codebooks)
    one, two, three = (codebooks[0, m][labels[:, m]] for m in range(3))
    assert read is not None
    found = read(torch.arange(20))
    assert found is not None and torch.equal(found, one + two + three)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_float(dtype):
    values = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(256, 256)
    like = torch.zeros(1)
    read = half_reader(values.view(torch.uint8), 256, dtype == torch.bfloat16, like)
    if read is None:
        pytest.skip("no instruction for it")
    found, want = read(torch.arange(256)), values.view(dtype).float()
    assert found is not None and torch.equal(found.isnan(), want.isnan())
    assert torch.equal(found.nan_to_num(0.0), want.nan_to_num(0.0))


def test_many_rows_go_by_blocks():
    codes = made(ScalarQuantizer(bits=4), 300)
    ids = torch.randint(-N, N, (9000,), generator=generator())
    assert torch.equal(codes.rows(ids), codes.decode()[ids])
    ids[8999] = N
    with pytest.raises(IndexError, match=f"got -{N} to {N}"):
        codes.rows(ids)


class SeesFunctions(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


class SeesOperators(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def test_leaves_what_torch_watches_to_operators():
    codes = made(ScalarQuantizer())
    read, ids = reader(codes), torch.tensor([3, 4])
    for mode in (SeesFunctions(), SeesOperators(), use_loops(False)):
        with mode:
            assert read(ids) is None
    assert read(ids.int()) is None and read(ids[None]) is None and read(ids.repeat(3)[::2]) is None
    assert read(ids.to("meta")) is None
    assert torch.equal(torch.vmap(lambda one: codes.rows(ids) + one)(torch.zeros(2, 1))[0], codes.rows(ids))


def test_codes_that_were_read_without_loops_are_read_by_loops_later():
    codes = made(HalfQuantizer())
    with use_loops(False):
        want = codes.rows([4])
    assert torch.equal(codes.rows(torch.tensor([4])), want) and codes.packed.remembered("row reader", list)


def test_a_codec_that_decodes_otherwise_is_asked():
    class Negated(HalfQuantizer):
        def _decode(self, data):
            return -super()._decode(data)

    codes = made(Negated())
    assert reader(codes) is None and torch.equal(codes.rows([4]), codes.decode()[4:5])


def test_copies_read_their_own_codes():
    codes = made(RaBitQuantizer(2))
    codes.rows([1])
    other = gpuzip.cat([codes[5:], codes[:5]])
    assert torch.equal(other.rows(range(N)), codes.rows([*range(5, N), *range(5)]))
    assert torch.equal(codes[10:20].rows([0, -1]), codes.rows([10, 19]))
