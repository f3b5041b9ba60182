"""Codecs that check rows while they encode them, and decode all rows in one call."""

import pytest
import torch

from gpuzip._core import rows as rows_module
from gpuzip._core.memory import uninitialized
from gpuzip.codecs import (
    BinaryQuantizer,
    Codec,
    HalfQuantizer,
    LloydMaxQuantizer,
    ProductQuantizer,
    ScalarQuantizer,
)
from gpuzip.codecs import codes as codes_module
from gpuzip.errors import GpuzipError
from gpuzip.ops import scalar_bytes, scalar_decode, scalar_encode, unpack_bits, use_loops
from gpuzip.ops._samples import generator

LANES = [True, False]
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
CODECS = {
    "binary": BinaryQuantizer(),
    "thresholds": BinaryQuantizer("dim_mean"),
    "int8": ScalarQuantizer(8, symmetric=True, signed=True),
    "bytes": ScalarQuantizer(8, per="tensor"),
    "nibbles": ScalarQuantizer(4),
    "float16": HalfQuantizer(),
    "bfloat16": HalfQuantizer("bfloat16"),
}


def normal(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=generator(seed))


@pytest.mark.parametrize("loops", LANES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CODECS)
def test_encodes_as_without_the_check(monkeypatch, name, dtype, loops):
    monkeypatch.setattr(rows_module, "BLOCK_BYTES", 4 * 13 * 40)
    x = normal(101, 13).to(dtype)
    with use_loops(loops):
        codec = CODECS[name].fit(x)
        assert codec.encodes_once
        block = x if dtype != torch.float64 else x.float()
        assert torch.equal(codec.encode(x).data, codec.encode_block(block))
        assert torch.equal(codec.encode(x.T.contiguous().T).data, codec.encode_block(block))


@pytest.mark.parametrize("loops", LANES)
@pytest.mark.parametrize("value", [float("nan"), -float("inf"), 6e18])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CODECS)
def test_refuses_what_every_codec_refuses(monkeypatch, name, dtype, value, loops):
    """In any block and column, by the same text."""
    if dtype == torch.float16 and value == 6e18:
        return  # no such value
    monkeypatch.setattr(rows_module, "BLOCK_BYTES", 4 * 13 * 40)
    x = normal(101, 13)
    codec = CODECS[name].fit(x)
    for row, column in [(0, 0), (39, 12), (100, 5)]:
        wrong = x.to(dtype).clone()
        wrong[row, column] = value
        with use_loops(loops), pytest.raises(GpuzipError) as error:
            codec.encode(wrong)
        with pytest.raises(GpuzipError) as usual:
            rows_module.Rows(f"{type(codec).__name__}.encode", wrong).check()
        assert str(error.value) == str(usual.value) and f"row {row} " in str(error.value)


@pytest.mark.parametrize("loops", LANES)
@pytest.mark.parametrize("name", CODECS)
def test_large_rows_that_are_sound_are_encoded(name, loops):
    """Norms of 2**61.9, whose squares add up to more than float32 holds."""
    x = torch.full((3000, 16), 2.0**59.9)
    x[::2] *= -1
    codec = CODECS[name].fit(x)
    with use_loops(loops):
        assert torch.equal(codec.encode(x).data, codec.encode_block(x))


@pytest.mark.parametrize("loops", LANES)
@pytest.mark.parametrize("flip", [0, 0x80])
def test_scalar_bytes_are_those_of_scalar_encode(loops, flip):
    for N, D, dtype in [
        (0, 3, torch.float32),
        (1, 1, torch.float16),
        (37, 13, torch.bfloat16),
        (300, 130, torch.float32),
    ]:
        x, start, step = (
            normal(N, D).to(dtype),
            normal(1, D)[0] - 2,
            torch.rand(D, generator=generator(D)) / 64 + 1e-3,
        )
        out = torch.empty((N, D), dtype=torch.uint8)
        with use_loops(loops):
            squares = scalar_bytes(x, start, step, 255, flip, out)
            assert torch.equal(out, scalar_encode(x, start, step) ^ flip)
        assert squares == pytest.approx(float(x.double().square().sum()), rel=1e-3)


@pytest.mark.parametrize("loops", LANES)
@pytest.mark.parametrize(("bits", "flips"), [(4, (0, 0x88)), (8, (0, 0x80))])
def test_scalar_decode_rounds_every_operation(loops, bits, flips):
    for N, D in [(0, 3), (1, 1), (37, 13), (300, 130), (5, 8)]:
        packed = torch.randint(0, 256, (N, -(-D * bits // 8)), generator=generator(N)).to(torch.uint8)
        start, step = normal(1, D)[0], torch.rand(D, generator=generator(D)) + 1e-3
        for flip in flips:
            codes = unpack_bits(packed ^ flip, D, bits).float()
            with use_loops(loops):
                assert torch.equal(
                    scalar_decode(packed, start, step, bits, flip), (codes + 0.5) * step + start
                )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "codec", [*CODECS.values(), LloydMaxQuantizer(4), ProductQuantizer(5, 4, pad=True)], ids=repr
)
def test_all_rows_at_once_are_the_rows_of_blocks(monkeypatch, codec: Codec, dtype):
    monkeypatch.setattr(codes_module, "BLOCK_BYTES", 4 * 13 * 40)
    x = normal(101, 13).to(dtype)
    codes = codec.fit_quietly(x).encode(x)
    parts = [codes[start : start + 40].decode() for start in range(0, 101, 40)]
    assert codes.codec.decodes_at_once
    assert codes.decode().dtype == dtype and codes.decode().is_contiguous()
    assert torch.equal(codes.decode(), torch.cat(parts))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.float64])
@pytest.mark.parametrize("N", [0, 3, 1 << 18])
def test_memory_starts_on_a_cache_line(N, dtype):
    rows = uninitialized(N, 129, dtype)
    assert rows.shape == (N, 129) and rows.dtype == dtype and rows.is_contiguous()
    assert N == 0 or rows.data_ptr() % 64 == 0
    rows[:] = 1  # all of it can be written
    assert rows.sum(dtype=torch.float64) == N * 129
