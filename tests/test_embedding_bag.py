"""QuantizedEmbeddingBag against nn.EmbeddingBag of the same rows."""

import pytest
import torch
from torch import Tensor, nn

from gpuzip.codecs import LloydMaxQuantizer, ProductQuantizer
from gpuzip.errors import DtypeError, GpuzipError
from gpuzip.nn import QuantizedEmbeddingBag

MODES = ["sum", "mean", "max"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ids(*shape: int) -> Tensor:
    return torch.randint(200, shape, generator=torch.Generator().manual_seed(1))


def made(**settings) -> QuantizedEmbeddingBag:
    return QuantizedEmbeddingBag.from_pretrained(normal(200, 24), **settings)


def check(module: QuantizedEmbeddingBag, *arguments, **more) -> None:
    """Compare with a dense bag, whose weight max_norm may overwrite."""
    dense = module.to_dense()
    with torch.no_grad():
        torch.testing.assert_close(
            module(*arguments, **more), dense(*arguments, **more), rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding_idx", [None, 5, -1])
def test_reduces_bags_of_one_length(mode, padding_idx):
    module, input = made(mode=mode, padding_idx=padding_idx), ids(31, 7)
    input[:, 2] = 5
    input[4] = 5
    input[6] = 199
    for bags in (input, input.int(), input.T, input[:1], input[:0], input[:, :1]):
        check(module, bags)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("padding_idx", [None, 5])
@pytest.mark.parametrize("include_last_offset", [False, True])
def test_reduces_bags_by_offsets_and_empty_bags(mode, padding_idx, include_last_offset):
    module = made(mode=mode, padding_idx=padding_idx, include_last_offset=include_last_offset)
    input = torch.cat([ids(40), torch.tensor([5, 5, 5, 7])])
    for offsets in ([0, 0, 3, 20, 40, 43, 44], [0, 44], [0, 1, 44]):
        check(module, input, torch.tensor(offsets))
        check(module, input.int(), torch.tensor(offsets).int())


@pytest.mark.parametrize("padding_idx", [None, 5])
def test_takes_empty_input(padding_idx):
    check(made(padding_idx=padding_idx), ids(0), torch.tensor([0, 0, 0]))


@pytest.mark.parametrize("padding_idx", [None, 5])
def test_per_sample_weights_match_torch_with_their_gradient(padding_idx):
    module, input = made(mode="sum", padding_idx=padding_idx), ids(12, 5)
    input[3, 1:3] = 5
    weights, twins = (normal(12, 5, seed=3).requires_grad_() for _ in range(2))
    check(module, input, per_sample_weights=weights)
    check(module, input.view(-1), torch.arange(0, 60, 4), per_sample_weights=weights.view(-1))
    module(input, per_sample_weights=weights).square().sum().backward()
    module.to_dense()(input, per_sample_weights=twins).square().sum().backward()
    assert weights.grad is not None and twins.grad is not None
    torch.testing.assert_close(weights.grad, twins.grad)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("max_norm", [0.5, 4.5])
@pytest.mark.parametrize("norm_type", [2.0, 1.0])
def test_max_norm_matches_torch(mode, max_norm, norm_type):
    check(made(mode=mode, max_norm=max_norm, norm_type=norm_type, padding_idx=5), ids(40, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("mode", MODES)
def test_supports_other_dtypes(dtype, mode):
    module = made(mode=mode).to(dtype)
    dense = module.to_dense()
    assert module(ids(4, 3)).dtype == dtype
    assert torch.equal(module(ids(4, 3)), dense(ids(4, 3)))


@pytest.mark.parametrize("codec", [LloydMaxQuantizer(3), ProductQuantizer(7, 4, pad=True)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_codebook_gradient_matches_a_dense_bag(codec, mode):
    module = made(codec=codec, freeze=False, mode=mode, padding_idx=5)
    dense, input = module.to_dense(), torch.cat([ids(30, 4), torch.full((2, 4), 5)])
    module(input).square().sum().backward()
    dense(input).square().sum().backward()
    ours, by_row = module.codebook.grad, dense.weight.grad
    assert ours is not None and by_row is not None
    (theirs,) = torch.autograd.grad((module.decoded(module.codes) * by_row).sum(), module.codebook)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


ONE, TWO = torch.tensor([1, 2]), torch.tensor([[1, 2]])


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        ((ONE,), "sum"),
        ((TWO, torch.tensor([0])), "sum"),
        ((torch.tensor(3), torch.tensor([0])), "sum"),
        ((torch.ones(1, 2, 3).long(),), "sum"),
        ((ONE, torch.tensor([[0]])), "sum"),
        ((ONE, torch.tensor([1])), "sum"),
        ((ONE, torch.tensor([0, 3])), "sum"),
        ((TWO, None, torch.ones(1, 3)), "sum"),
        ((TWO, None, torch.ones(1, 2)), "mean"),
        ((TWO, None, torch.ones(1, 2).double()), "sum"),
    ],
)
def test_invalid_shapes_raise_as_in_torch(arguments, mode):
    module = made(mode=mode)
    with pytest.raises((ValueError, RuntimeError, NotImplementedError)) as theirs:
        module.to_dense()(*arguments)
    with pytest.raises(type(theirs.value)) as ours:
        module(*arguments)
    assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("wrong", [200, -1])
def test_refuses_an_id_out_of_range(wrong):
    with pytest.raises(IndexError, match="out of range"):
        made()(torch.tensor([[1, wrong]]))


@pytest.mark.parametrize("input", [torch.ones(2, 2), [[1]], torch.ones(2, 2, dtype=torch.bool)])
def test_refuses_input_that_is_not_ids(input):
    with pytest.raises(DtypeError, match="int64 or int32"):
        made()(input)


def test_refuses_invalid_arguments():
    with pytest.raises(GpuzipError, match=r"mode must be one of sum, mean, max.*; got 'median'"):
        QuantizedEmbeddingBag(10, 4, mode="median")
    with pytest.raises(GpuzipError, match="sparse must be False"):
        QuantizedEmbeddingBag(10, 4, sparse=True)
    with pytest.raises(GpuzipError, match="Pass one of them"):
        made(freeze=True, trainable="scale")


def test_takes_positional_arguments_in_torch_s_order():
    module = QuantizedEmbeddingBag(9, 8, 2.0, 1.0, False, "max", False, normal(9, 8), True, 3, bits=2)
    dense = nn.EmbeddingBag(9, 8, 2.0, 1.0, False, "max", False, normal(9, 8), True, 3)
    names = ("max_norm", "norm_type", "mode", "sparse", "include_last_offset", "padding_idx")
    assert [getattr(module, name) for name in names] == [getattr(dense, name) for name in names]
    assert torch.equal(module.weight[3], normal(9, 8)[3])
    twin = module.to_dense()
    assert type(twin) is nn.EmbeddingBag
    assert [getattr(twin, name) for name in names] == [getattr(dense, name) for name in names]


def test_from_codes_shares_rows_and_repr_shows_settings():
    codes = LloydMaxQuantizer(4).fit(normal(200, 24)).encode(normal(200, 24))
    module = QuantizedEmbeddingBag.from_codes(codes, mode="sum", padding_idx=1)
    check(module, ids(5, 3))
    assert repr(module).startswith(
        "QuantizedEmbeddingBag(200, 24, padding_idx=1, mode='sum', 24 codes of 4 bits"
    )


def test_loads_the_state_of_any_codec():
    source, target = made(bits=2), QuantizedEmbeddingBag(200, 24)
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.weight, source.weight)


@pytest.mark.parametrize("mode", MODES)
def test_compiles_without_graph_breaks(mode):
    torch._dynamo.reset()
    module = made(mode=mode, padding_idx=5)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids(4, 3)), module(ids(4, 3)))
    torch.testing.assert_close(
        compiled(ids(9), torch.tensor([0, 2, 2])), module(ids(9), torch.tensor([0, 2, 2]))
    )
