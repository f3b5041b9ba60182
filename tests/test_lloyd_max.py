"""Lloyd-Max quantization: settings, groups, blocks, and what is refused."""

from itertools import pairwise

import pytest
import torch

import gpuzip
from gpuzip import LloydMaxQuantizer, ScalarQuantizer
from gpuzip.errors import FormatError, GpuzipError


def mse(codec, x):
    return float((codec.fit(x).encode(x).decode() - x).square().mean())


@pytest.mark.parametrize("bits", range(1, 9))
def test_each_value_takes_its_nearest_level(real, bits):
    x = real[:200]
    codec = LloydMaxQuantizer(bits).fit(x)
    levels = codec.codebook.view(-1)
    nearest = levels[(x[..., None] - levels).abs().argmin(-1)]
    y = codec.encode(x).decode()
    assert codec.code_size == 384 * bits // 8
    torch.testing.assert_close((x - y).abs(), (x - nearest).abs(), rtol=0, atol=1e-7)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_better_than_equal_steps(real, bits):
    best = min(
        mse(ScalarQuantizer(bits, range, "tensor"), real[:500]) for range in ("minmax", "quantile", "mse")
    )
    assert mse(LloydMaxQuantizer(bits), real[:500]) < best


@pytest.mark.full
def test_more_codebooks_are_no_worse(real):
    x = real[:1000]
    errors = [mse(LloydMaxQuantizer(3, per=per), x) for per in ("tensor", 96, 8, "dim")]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.99 * errors[0]


def test_a_group_has_levels_of_its_own(real):
    x = torch.cat([real[:300, :96], 100 * real[:300, 96:192]], 1)
    codec = LloydMaxQuantizer(4, per=96).fit(x)
    assert codec.codebook.shape == (2, 16, 1)
    for part in (slice(96), slice(96, None)):
        alone = LloydMaxQuantizer(4).fit(x[:, part].contiguous())
        torch.testing.assert_close(codec.codebook[0 if part.start is None else 1], alone.codebook[0])


@pytest.mark.parametrize(
    "block_len", [1, 3, 12, *(pytest.param(n, marks=pytest.mark.full) for n in (2, 4, 6))]
)
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_blocks(real, bits, block_len):
    x = real[:400]
    codec = LloydMaxQuantizer(bits, block_len).fit(x)
    assert codec.codebook.shape == (1, 1 << bits, block_len)
    assert codec.code_size == -(-384 // block_len * bits // 8)
    blocks, levels = x[:20].reshape(-1, block_len), codec.codebook[0]
    nearest = torch.cdist(blocks.double(), levels.double()).amin(1)
    found = torch.linalg.vector_norm(blocks - codec.encode(x[:20]).decode().view(-1, block_len), dim=1)
    torch.testing.assert_close(found.double(), nearest, rtol=1e-4, atol=1e-6)


def test_blocks_of_one_codebook_a_dimension(real):
    codec = LloydMaxQuantizer(4, 4, "dim").fit(real[:400])
    assert codec.codebook.shape == (96, 16, 4)
    assert mse(codec, real[:400]) < mse(LloydMaxQuantizer(4, 4), real[:400])


def test_errors_fall_with_bits(real):
    errors = [mse(LloydMaxQuantizer(bits), real[:300]) for bits in range(1, 9)]
    assert all(after < 0.5 * before for before, after in pairwise(errors))


@pytest.mark.parametrize("value", [0.0, -2.5])
def test_one_value_is_kept(value):
    x = torch.full((3, 8), value)
    for codec in (
        LloydMaxQuantizer(1),
        LloydMaxQuantizer(8),
        LloydMaxQuantizer(3, 4),
        LloydMaxQuantizer(2, per="dim"),
    ):
        assert torch.equal(codec.fit(x).encode(x).decode(), x)


def test_fewer_blocks_than_levels_are_kept():
    x = torch.tensor([[1.0, 2, 3, 4], [5, 6, 1, 2]])
    assert torch.equal(LloydMaxQuantizer(4, 2).fit(x).encode(x).decode(), x)


def test_the_same_seed_gives_the_same_bytes(real):
    for codec in (LloydMaxQuantizer(4), LloydMaxQuantizer(4, 4)):
        one, two = codec.fit(real[:500], seed=1), codec.fit(real[:500], seed=1)
        assert torch.equal(one.codebook, two.codebook)


def test_one_bit_counts_every_byte(real, tmp_path):
    codes = LloydMaxQuantizer().fit(real).encode(real)
    assert codes.nbytes == len(real) * 48 + 8
    info = codes.save(tmp_path / "x.ezip", real)
    assert info.nbytes - codes.nbytes < 1024
    assert 31.5 < codes.ratio < 32


def test_levels_from_elsewhere(real):
    codec = LloydMaxQuantizer(2).fit(real)
    same = LloydMaxQuantizer.from_codebook(codec.codebook, 384)
    assert same.same_as(codec)
    halves = LloydMaxQuantizer.from_codebook(
        torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)), 12
    )
    assert (halves.bits, halves.block_len, halves.per, halves.code_size) == (2, 3, 6, 1)
    for wrong in (
        torch.zeros(1, 3, 1),
        torch.tensor([[[1.0], [0.0]]]),
        torch.zeros(5, 2, 1),
        torch.zeros(2, 2),
    ):
        with pytest.raises(GpuzipError, match="from_codebook"):
            LloydMaxQuantizer.from_codebook(wrong, 12)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"bits": 0}, r"bits must be a whole number from 1 to 8.*; got 0"),
        ({"bits": 1.5}, r"bits must be .*; got 1.5"),
        ({"block_len": 0}, "block_len must be a whole number of at least 1; got 0"),
        ({"per": "row"}, "per must be 'tensor', 'dim' or a number of dimensions; got 'row'"),
    ],
)
def test_settings_are_checked(settings, match):
    with pytest.raises(GpuzipError, match=match):
        LloydMaxQuantizer(**settings)


def test_shapes_are_checked(real):
    with pytest.raises(GpuzipError, match=r"block_len must divide d=384; got 5\. Use block_len=6, 4, 3\."):
        LloydMaxQuantizer(block_len=5).fit(real)
    for codec in (LloydMaxQuantizer(per=100), LloydMaxQuantizer(block_len=4, per=6)):
        with pytest.raises(GpuzipError, match="per must divide d=384 and be a multiple of block_len"):
            codec.fit(real)
    with pytest.raises(GpuzipError, match="x must have at least one row"):
        LloydMaxQuantizer().fit(real[:0])


def test_levels_out_of_order_are_refused(real):
    codec = LloydMaxQuantizer(2).fit(real)
    with pytest.raises(FormatError, match="codebook"):
        LloydMaxQuantizer.restore(codec.config(), {"codebook": codec.codebook.flip(1)})


@pytest.mark.full
def test_search_of_few_bits_finds_most(real, real_queries):
    _, truth = gpuzip.HalfQuantizer().fit(real).encode(real).search(real_queries, 10)
    for bits, least in ((1, 0.6), (2, 0.75), (4, 0.93), (8, 0.98)):
        _, ids = LloydMaxQuantizer(bits).fit(real).encode(real).search(real_queries, 10)
        assert gpuzip.recall(ids, truth) > least


@pytest.mark.parametrize("bits", [0.1, 1, 2.3, 8])
@pytest.mark.parametrize("d", [1, 5, 64])
def test_few_rows_of_mixed_bits_decode_as_many_do(d, bits):
    """Few rows are decoded by their columns, many by a table of bytes."""
    x = torch.randn(300, d, generator=torch.Generator().manual_seed(d)) * torch.linspace(0.1, 3, d)
    codes = gpuzip.MixedLloydMaxQuantizer(bits).fit(x).encode(x)
    many = codes.decode()
    assert many.std(0).max() > 0
    assert torch.equal(torch.cat([codes[:256].decode(), codes[256:].decode()]), many)
    assert torch.equal(codes.rows([299, 0, 299]), many[[299, 0, 299]])
    assert torch.equal(codes.rows(range(299, -1, -1)), many.flip(0))
    assert codes.rows([]).shape == codes[:0].decode().shape == (0, d)
