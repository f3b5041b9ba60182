"""Floats that come back bit for bit, in fewer bytes than their information has to take elsewhere."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gpuzip.archive.lossless import Lossless, decode_lossless, encode_lossless
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.ops._samples import generator

INTS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view(INTS[x.dtype.itemsize])


def decoded(coded: Lossless, x: Tensor, block_rows: int, blocks: list[int] | None = None) -> Tensor:
    ends = coded.lengths.cumsum(0)
    starts = torch.stack([ends - coded.lengths, ends], 1)
    blocks = list(range(len(starts))) if blocks is None else blocks
    N, D = x.shape
    return decode_lossless(coded.model, coded.stream, starts[blocks], N, D, x.dtype, block_rows, blocks)


def round_trip(x: Tensor, block_rows: int = 64) -> float:
    """The bits that a value takes in blocks, after all came back."""
    coded = encode_lossless(x, block_rows)
    got = decoded(coded, x, block_rows)
    assert got.dtype == x.dtype and torch.equal(bits(got), bits(x))
    return 8 * len(coded.stream) / max(1, x.numel())


def rows(N: int, D: int, seed: int = 0) -> Tensor:
    x = torch.randn(N, D, generator=generator(seed))
    return torch.nn.functional.normalize(x * torch.logspace(0, -1, D) + 0.2)


@settings(deadline=None, max_examples=12)
@given(
    N=st.sampled_from([0, 1, 2, 33, 65]),
    D=st.sampled_from([1, 3, 20]),
    dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(["any bits", "rows", "repeats", "whole", "decimals"]),
    block_rows=st.sampled_from([1, 7, 32, 1000]),
    seed=st.integers(0, 99),
)
def test_every_bit_comes_back(N, D, dtype, kind, block_rows, seed):
    g = generator(seed)
    if kind == "any bits":
        whole = torch.randint(-(2**63), 2**63 - 1, (N, D), generator=g)
        x = whole.to(INTS[dtype.itemsize]).view(dtype)
    elif kind == "repeats":
        x = rows(3, D, seed)[torch.randint(0, 3, (N,), generator=g)].to(dtype)
    elif kind == "whole":
        x = torch.randint(-5, 300, (N, D), generator=g).to(dtype)
    elif kind == "decimals":
        x = (torch.randint(-(10**5), 10**5, (N, D), generator=g).double() / 10**4).to(dtype)
    else:
        x = rows(N, D, seed).to(dtype)
    round_trip(x, block_rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_no_ordinary_number_comes_back(dtype):
    info = torch.finfo(dtype)
    special = [
        0.0,
        -0.0,
        float("inf"),
        -float("inf"),
        float("nan"),
        info.tiny,
        info.max,
        -info.smallest_normal / 4,
    ]
    x = torch.cat([torch.tensor([special, special], dtype=dtype), rows(200, 8).to(dtype)])
    bits(x)[7, 3] = bits(x)[0, 4] + 5  # a NaN of another payload
    bits(x)[8, 3] = -3
    round_trip(x)


@pytest.mark.parametrize("low", [0, -3, 2])
def test_zeros_of_both_signs_stay_apart(low):
    x = torch.randint(low, 9, (400, 5), generator=generator(0)).float()
    x[3, 2], x[4, 2] = -0.0, 0.0
    assert round_trip(x, 400) < 5


def test_low_bits_that_are_zero_take_nothing():
    x = rows(2000, 16)
    sizes = {dtype: round_trip(x.to(dtype), 1000) for dtype in DTYPES}
    for dtype in (torch.float16, torch.bfloat16):
        assert round_trip(x.to(dtype).float(), 1000) == pytest.approx(sizes[dtype], rel=0.01)
        assert round_trip(x.to(dtype).double(), 1000) == pytest.approx(sizes[dtype], rel=0.01)
    assert round_trip(x.double(), 1000) == sizes[torch.float32]
    assert sizes[torch.bfloat16] < 11 and sizes[torch.float16] < 14.5 and sizes[torch.float32] < 28.5
    few = (x.view(torch.int32) & -4096).view(torch.float32)  # 12 bits of zeros, of no other dtype
    assert round_trip(few, 1000) < sizes[torch.float32] - 11.9


def test_whole_numbers_and_decimals_take_their_entropy():
    g = generator(1)
    sixteen = torch.randint(0, 16, (2000, 16), generator=g).float()
    assert 4 <= round_trip(sixteen, 1000) < 4.1
    thousandths = torch.randint(-2000, 2000, (2000, 16), generator=g).double() / 1000
    assert 11.9 < round_trip(thousandths.float(), 1000) < 12.2


def test_a_constant_column_takes_nothing():
    x = rows(2000, 8)
    alone = round_trip(x, 1000) * 8
    constant = torch.cat([x, torch.full((2000, 8), 0.123456)], 1)
    assert round_trip(constant, 1000) * 16 < alone + 1


def test_rows_that_repeat_take_little():
    x = rows(100, 64)
    once, often = encode_lossless(x, 1000), encode_lossless(x.repeat(10, 1), 1000)
    assert len(often.stream) < len(once.stream) + 3000
    round_trip(x.repeat(10, 1)[torch.randperm(1000, generator=generator(0))], 300)


def test_blocks_have_rows():
    with pytest.raises(GpuzipError, match=r"encode_lossless: block_rows must be in 1 \.\. 65536; got 0"):
        encode_lossless(rows(4, 4), 0)


def test_blocks_are_decoded_alone_and_in_any_order():
    x = rows(150, 6)
    coded = encode_lossless(x, 40)
    assert len(coded.lengths) == 4 and int(coded.lengths.sum()) == len(coded.stream)
    assert torch.equal(decoded(coded, x, 40, [3, 1]), torch.cat([x[120:], x[40:80]]))


@pytest.mark.parametrize("repeats", [False, True])
def test_damaged_blocks_are_refused_or_read_within_bounds(repeats):
    x = rows(64, 9).repeat(1 + 7 * repeats, 1)[:64] if not repeats else rows(8, 9).repeat(8, 1)
    coded, g, refused = encode_lossless(x, 32), generator(3), 0
    for i in range(100):
        stream = coded.stream.clone()
        stream[torch.randint(0, len(stream), (1 + i % 3,), generator=g)] ^= 1 + i
        lengths = coded.lengths - torch.randint(0, 3, (1,), generator=g) * (i % 2)
        try:
            got = decoded(Lossless(coded.model, stream, lengths), x, 32)
            assert got.shape == x.shape
        except FormatError as error:
            refused += "decode_lossless: block " in str(error)
    assert refused > 30


def test_damaged_models_are_refused():
    x, g, refused = rows(64, 9), generator(3), 0
    coded = encode_lossless(x, 32)
    for i in range(100):
        model = coded.model[: len(coded.model) - i % 2].clone()
        model[torch.randint(0, len(model), (1,), generator=g)] ^= 1 + i
        try:
            assert decoded(coded._replace(model=model), x, 32).shape == x.shape
        except FormatError as error:
            refused += str(error).startswith("decode_lossless: ")
    assert refused > 50
    with pytest.raises(FormatError, match="the model must be bytes of encode_lossless"):
        decoded(coded._replace(model=coded.model[:0]), x, 32)


def test_values_that_the_sample_lacks_come_back():
    x = torch.randint(0, 100, (30_000, 40), generator=generator(5)).float()
    x[1::1000, 3] = 9000.0  # of the rows between those that tables are counted over
    x[1, 1] = -12345.0
    assert round_trip(x, 1000) < 7
