"""QuantizedEmbedding against nn.Embedding of the same rows: look-ups, arguments, dtypes, errors."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gpuzip
from gpuzip.codecs import (
    BinaryQuantizer,
    HalfQuantizer,
    LloydMaxQuantizer,
    ProductQuantizer,
    ScalarQuantizer,
)
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.nn import QuantizedEmbedding
from gpuzip.nn._lookup import lookup, table_of_bytes

CODECS = {
    "lloydmax1": LloydMaxQuantizer(1),
    "lloydmax3": LloydMaxQuantizer(3),
    "lloydmax4": LloydMaxQuantizer(4),
    "lloydmax8": LloydMaxQuantizer(8),
    "blocks": LloydMaxQuantizer(4, block_len=3),
    "dims": LloydMaxQuantizer(2, per="dim"),
    "parts": LloydMaxQuantizer(4, per=8),
    "pq": ProductQuantizer(6, 5),
    "padded pq": ProductQuantizer(7, 4, pad=True),
    "scalar": ScalarQuantizer(4),
    "signed": ScalarQuantizer(8, per="tensor", symmetric=True, signed=True),
    "binary": BinaryQuantizer(),
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ids(*shape: int, below: int = 200, seed: int = 1) -> Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


# --- look-ups


@pytest.mark.parametrize("name", CODECS)
def test_returns_the_rows_that_the_codec_decodes(name):
    x, codec = normal(200, 24), CODECS[name]
    module = QuantizedEmbedding.from_pretrained(x, codec=codec)
    want = codec.fit_quietly(x).encode(x).decode()
    assert torch.equal(module.weight, want)
    assert torch.equal(module(ids(5, 7)), want[ids(5, 7)])


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (7,), (2, 3, 4), (300, 2)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_takes_input_of_every_shape(shape, dtype):
    module = QuantizedEmbedding.from_pretrained(normal(200, 24))
    dense, input = module.to_dense(), ids(*shape).to(dtype)
    assert torch.equal(module(input), dense(input))
    assert module(input).shape == (*shape, 24)


def test_takes_input_of_every_memory_layout():
    module = QuantizedEmbedding.from_pretrained(normal(200, 24))
    input = ids(6, 8)
    for view in (input.T, input[::2, ::3], input[:, :1].expand(6, 5), input.flip(1)):
        assert torch.equal(module(view), module.weight[view])


@pytest.mark.parametrize("wrong", [200, -1, 2**40, -(2**62)])
def test_id_out_of_range_raises_as_in_torch(wrong):
    module = QuantizedEmbedding.from_pretrained(normal(200, 24))
    input = torch.tensor([3, wrong])
    with pytest.raises(IndexError) as ours:
        module(input)
    with pytest.raises(IndexError) as theirs:
        module.to_dense()(input)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("input", [torch.ones(2), torch.ones(2, dtype=torch.int16), [1, 2], 3])
def test_refuses_input_that_is_not_ids(input):
    with pytest.raises(DtypeError, match="int64 or int32"):
        QuantizedEmbedding(5, 8)(input)


def test_refuses_input_on_another_device():
    with pytest.raises(GpuzipError, match="input must be on cpu like the codes; got meta"):
        QuantizedEmbedding(5, 8)(torch.ones(2, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_supports_every_dtype_of_rows_and_module(dtype):
    made = QuantizedEmbedding.from_pretrained(normal(200, 24).to(dtype), padding_idx=4)
    cast = QuantizedEmbedding.from_pretrained(normal(200, 24), padding_idx=4).to(dtype)
    drawn = QuantizedEmbedding(200, 24, 4, dtype=dtype)
    for module in (made, cast, drawn):
        assert module.codebook.dtype == module(ids(3)).dtype == module.weight.dtype == dtype
        assert module.codes.dtype == torch.uint8
        assert torch.equal(module(ids(40)), module.to_dense()(ids(40)))


def test_half_and_bfloat16_round_only_the_codebook():
    module = QuantizedEmbedding.from_pretrained(normal(200, 24))
    before, codes = module.weight, module.codes.clone()
    assert torch.equal(module.half().weight, before.half())
    assert torch.equal(module.codes, codes)
    assert torch.equal(module.float().weight, before.half().float())


# --- arguments


def test_draws_the_same_weight_as_nn_embedding():
    torch.manual_seed(3)
    dense = nn.Embedding(100, 24, padding_idx=7)
    torch.manual_seed(3)
    module = QuantizedEmbedding(100, 24, 7, bits=8)
    assert (module.weight - dense.weight).abs().max() < 0.1
    assert torch.equal(module.weight[7], torch.zeros(24))


@pytest.mark.parametrize("index", [0, 7, -1, -200])
def test_keeps_the_padding_row_exactly(index):
    x = normal(200, 24)
    module = QuantizedEmbedding.from_pretrained(x, padding_idx=index, bits=1)
    assert module.padding_idx == index % 200
    assert torch.equal(module(torch.tensor([[index % 200, 5]]))[0, 0], x[index])
    assert torch.equal(module.weight[index], x[index])
    assert not torch.equal(module.weight[5], x[5])
    x[index] = 0  # the module keeps a copy
    assert not torch.equal(module.weight[index], x[index])


@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 4.0, 1e9])
def test_max_norm_matches_nn_embedding(max_norm, norm_type):
    x = normal(200, 24) * torch.linspace(0, 3, 200)[:, None]
    module = QuantizedEmbedding.from_pretrained(x, True, 2, max_norm, norm_type)
    dense, input = module.to_dense(), ids(500)
    assert dense.max_norm == max_norm and dense.norm_type == norm_type
    with torch.no_grad():
        torch.testing.assert_close(module(input), dense(input), rtol=1e-6, atol=1e-7)
    assert torch.equal(module.weight[3], module.decoded(module.codes)[3])  # weight is not overwritten


def test_max_norm_works_in_half_precision():
    module = QuantizedEmbedding.from_pretrained(normal(200, 24).half(), max_norm=1.0)
    dense = module.to_dense()
    with torch.no_grad():
        torch.testing.assert_close(module(ids(50)), dense(ids(50)), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["scale_grad_by_freq", "sparse"])
def test_refuses_settings_for_row_gradients(name):
    setting: dict[str, Any] = {name: True}
    with pytest.raises(GpuzipError, match=f"{name} must be False; compressed rows have no gradients"):
        QuantizedEmbedding(10, 8, **setting)
    with pytest.raises(GpuzipError, match=f"{name} must be False; compressed rows have no gradients"):
        QuantizedEmbedding.from_pretrained(normal(10, 8), **setting)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_embeddings": 0}, "num_embeddings must be .*; got 0"),
        ({"embedding_dim": 2.5}, "embedding_dim must be .*; got 2.5"),
        ({"padding_idx": 10}, "padding_idx must be a whole number from -10 to 9; got 10"),
        ({"padding_idx": -11}, "padding_idx must be .*; got -11"),
        ({"bits": 9}, r"bits must be .*; got 9"),
        ({"trainable": "rows"}, "trainable must be None, 'codebook' or 'scale'; got 'rows'"),
        ({"codec": "pq"}, "codec must be a codec such as .*; got 'pq'"),
        ({"codec": HalfQuantizer()}, "must decode by a look-up table"),
        ({"_weight": torch.ones(10, 9)}, r"_weight must have shape .* = \(10, 8\); got \(10, 9\)"),
        ({"_weight": torch.full((10, 8), torch.nan)}, "NaN"),
        ({"_weight": torch.ones(10, 8, dtype=torch.int32)}, "int32"),
        (
            {"codec": LloydMaxQuantizer().fit(torch.ones(3, 4))},
            "must have 4 columns, as this codec was fitted on",
        ),
    ],
)
def test_refuses_invalid_arguments(arguments, message):
    with pytest.raises(GpuzipError, match=message):
        QuantizedEmbedding(**{"num_embeddings": 10, "embedding_dim": 8, **arguments})


def test_refuses_freeze_and_trainable_that_contradict():
    x = normal(20, 8)
    assert list(QuantizedEmbedding.from_pretrained(x).parameters()) == []
    learning = QuantizedEmbedding.from_pretrained(x, freeze=False)
    assert [name for name, _ in learning.named_parameters()] == ["codebook"]
    scaled = QuantizedEmbedding.from_pretrained(x, freeze=False, trainable="scale")
    assert [name for name, _ in scaled.named_parameters()] == ["scale"]
    scaled = QuantizedEmbedding.from_pretrained(x, trainable="scale")
    assert [name for name, _ in scaled.named_parameters()] == ["scale"]
    with pytest.raises(GpuzipError, match="Pass one of them"):
        QuantizedEmbedding.from_pretrained(x, freeze=True, trainable="codebook")


@pytest.mark.parametrize("embeddings", [normal(8), normal(2, 3, 4), torch.ones(4, 3).int(), "x"])
def test_from_pretrained_refuses_what_is_not_a_float_matrix(embeddings):
    with pytest.raises(GpuzipError, match=r"from_pretrained: embeddings must be"):
        QuantizedEmbedding.from_pretrained(embeddings)


def test_reads_arrays_and_memory_maps_without_copying_them(tmp_path, real):
    np.save(tmp_path / "x.npy", real[:500].numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    want = QuantizedEmbedding.from_pretrained(real[:500], padding_idx=3)
    for x in (mapped, real[:500].numpy()):
        got = QuantizedEmbedding.from_pretrained(x, padding_idx=3)
        assert torch.equal(got.weight, want.weight) and torch.equal(got.weight[3], real[3])


def test_from_codes_shares_bytes_and_reads_files(tmp_path, real):
    codes = LloydMaxQuantizer(4).fit(real[:500]).encode(real[:500])
    module = QuantizedEmbedding.from_codes(codes, padding_idx=-1, max_norm=0.5)
    assert module.codes.data_ptr() == codes.data.data_ptr()
    assert (module.padding_idx, module.max_norm) == (499, 0.5)
    assert torch.equal(module.weight, codes.decode())
    codes.save(tmp_path / "x.ezip")
    opened = QuantizedEmbedding.from_codes(gpuzip.open(tmp_path / "x.ezip"))
    assert torch.equal(opened(ids(9)), codes.decode()[ids(9)])


def test_from_codes_does_not_change_the_codes(real):
    codes = LloydMaxQuantizer(4).fit(real[:500]).encode(real[:500])
    want = codes.decode()
    module = QuantizedEmbedding.from_codes(codes, trainable="codebook")
    with torch.no_grad():
        module.codebook.zero_()
    module.half().to("meta")
    assert codes.data.device.type == "cpu"
    assert torch.equal(codes.decode(), want)


def test_from_codes_keeps_the_dtype_and_refuses_other_codecs():
    x = normal(50, 8)
    half = QuantizedEmbedding.from_codes(ScalarQuantizer(8).fit(x).encode(x.half()))
    assert half(ids(3, below=50)).dtype == torch.float16
    with pytest.raises(GpuzipError, match="must decode by a look-up table"):
        QuantizedEmbedding.from_codes(HalfQuantizer().fit(x).encode(x))


def test_training_does_not_change_a_fitted_codec():
    x = normal(50, 8)
    codec = LloydMaxQuantizer(4).fit(x)
    want = codec.codebook.clone()
    module = QuantizedEmbedding.from_pretrained(x, freeze=False, codec=codec)
    with torch.no_grad():
        module.codebook.add_(1)
    assert torch.equal(codec.codebook, want)


# --- size, repr and weight


def test_compresses_real_embeddings_with_a_small_error(real):
    module = QuantizedEmbedding.from_pretrained(real, bits=4)
    cosines = torch.cosine_similarity(module.weight, real)
    assert cosines.mean() > 0.99
    assert module.nbytes == 8000 * 192 + 16 * 4
    assert module.ratio == pytest.approx(8000 * 384 * 4 / module.nbytes)


def test_nbytes_and_repr_include_every_tensor():
    module = QuantizedEmbedding(100, 24, 3, max_norm=2.0, bits=2, trainable="scale")
    assert module.nbytes == 100 * 6 + 4 * 4 + 24 * 4 + 24 * 4
    assert repr(module) == (
        "QuantizedEmbedding(100, 24, padding_idx=3, max_norm=2.0, trainable='scale', 24 codes of 2 bits, "
        "808 bytes, 11.9x smaller)"
    )


def test_to_dense_keeps_settings():
    module = QuantizedEmbedding(100, 24, 3, max_norm=2.0, norm_type=1.0, dtype=torch.bfloat16).eval()
    dense = module.to_dense()
    assert type(dense) is nn.Embedding and not dense.training
    assert (dense.padding_idx, dense.max_norm, dense.norm_type) == (3, 2.0, 1.0)
    assert dense.weight.dtype == torch.bfloat16 and dense.weight.requires_grad
    assert torch.equal(dense.weight, module.weight)


def test_weight_is_a_copy_without_gradient():
    module = QuantizedEmbedding(100, 24, trainable="codebook")
    weight = module.weight
    assert not weight.requires_grad and weight.is_contiguous()
    weight.zero_()
    assert module.weight.abs().sum() > 0


def test_works_in_inference_mode(real):
    with torch.inference_mode():
        module = QuantizedEmbedding.from_pretrained(real[:500], padding_idx=0)
        got = module(ids(9))
        assert module.double()(ids(9)).dtype == torch.float64
    assert torch.equal(got, module.float().weight[ids(9)])


@pytest.mark.parametrize(("nbits", "D", "K"), [(4, 384, 256), (2, 384, 256), (1, 100, 16), (4, 385, 16)])
def test_table_of_bytes_gives_the_same_rows(nbits, D, K):
    codebook = torch.randn(1, 1 << nbits, 1, dtype=torch.float16)
    codes = torch.randint(0, 256, (50, -(-D * nbits // 8)), dtype=torch.uint8)
    assert table_of_bytes(codebook, D, 10)[0] is codebook
    table, share = table_of_bytes(codebook, D, 1 << 23)
    assert table.shape[1] == K
    assert torch.equal(lookup(codes, table, None, share), lookup(codes, codebook, None, D))
