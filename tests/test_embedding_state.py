"""The state of a QuantizedEmbedding: saving, loading into other settings, moving, copying and tying."""

import copy
import io

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gpuzip.codecs import BinaryQuantizer, LloydMaxQuantizer, ProductQuantizer, ScalarQuantizer
from gpuzip.nn import QuantizedEmbedding, QuantizedEmbeddingBag, quantize_embeddings_

SETTINGS = [
    {"bits": 3},
    {"codec": LloydMaxQuantizer(4, block_len=4)},
    {"codec": LloydMaxQuantizer(2, per="dim")},
    {"codec": ProductQuantizer(5, 4, pad=True)},
    {"codec": ScalarQuantizer(8, per="tensor")},
    {"codec": BinaryQuantizer()},
]


def made(**settings) -> QuantizedEmbedding:
    x = torch.randn(100, 24, generator=torch.Generator().manual_seed(0))
    return QuantizedEmbedding.from_pretrained(x, padding_idx=2, **settings)


def other(**settings) -> QuantizedEmbedding:
    return QuantizedEmbedding(100, 24, padding_idx=2, **settings)


def test_state_dict_holds_only_the_tensors():
    assert list(made().state_dict()) == ["codes", "codebook", "padding_row"]
    assert set(made(freeze=False).state_dict()) == {"codes", "codebook", "padding_row"}
    assert set(made(freeze=False, trainable="scale").state_dict()) == {
        *("codes", "codebook", "padding_row", "scale")
    }


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("start", [{}, {"bits": 8}, {"codec": BinaryQuantizer()}, {"trainable": "codebook"}])
def test_loads_the_state_of_any_codec(settings, start):
    source, target = made(**settings), other(**start)
    state = source.state_dict()
    assert target.load_state_dict(state) == ([], [])
    assert torch.equal(target.weight, source.weight)
    assert target.codes.data_ptr() != source.codes.data_ptr()
    assert isinstance(target.codebook, nn.Parameter) == ("trainable" in start)
    assert target.ratio == source.ratio


def test_loading_keeps_the_module_s_dtype():
    source, target = made(bits=3), other().half()
    target.load_state_dict(source.state_dict())
    assert {t.dtype for t in target.buffers()} == {torch.uint8, torch.float16}
    assert torch.equal(target.weight, source.half().weight)


def test_loading_keeps_the_parameter_object_for_optimizers():
    target = other(trainable="codebook", bits=2)
    optimizer = torch.optim.SGD(target.parameters(), 0.1)
    target.load_state_dict(made(bits=3).state_dict())
    target(torch.arange(9)).sum().backward()
    before = target.codebook.clone()
    optimizer.step()
    assert not torch.equal(target.codebook, before)


def test_assign_fills_a_module_on_the_meta_device():
    source = made(bits=3)
    target = other(device="meta")
    assert target(torch.ones(2, 3, dtype=torch.int64, device="meta")).shape == (2, 3, 24)
    target.load_state_dict(source.state_dict(), assign=True)
    assert target.codes.data_ptr() == source.codes.data_ptr()
    assert torch.equal(target.weight, source.weight)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_saves_with_safetensors_and_torch_save(settings, tmp_path):
    source = made(**settings)
    save_file(source.state_dict(), tmp_path / "x.safetensors")
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    for state in (load_file(tmp_path / "x.safetensors"), torch.load(file, weights_only=True)):
        target = other()
        target.load_state_dict(state)
        assert torch.equal(target.weight, source.weight)


def changed(**tensors: Tensor | int) -> dict[str, Tensor | int]:
    return made().state_dict() | tensors


WRONG = {
    "rows": (
        changed(codes=torch.zeros(99, 12, dtype=torch.uint8)),
        r"must be \(100, B\) uint8; got \(99, 12\) uint8",
    ),
    "bytes": (
        changed(codes=torch.zeros(100, 11, dtype=torch.uint8)),
        r"must have 12 bytes per row, .*; got 11",
    ),
    "codes of floats": (changed(codes=torch.zeros(100, 12)), r"must be \(100, B\) uint8; got .* float32"),
    "codes of one dimension": (
        changed(codes=torch.zeros(100, dtype=torch.uint8)),
        r"must be \(100, B\) uint8",
    ),
    "entries": (changed(codebook=torch.zeros(1, 12, 1)), "entries; got 12"),
    "one entry": (changed(codebook=torch.zeros(1, 1, 1)), "entries; got 1$|entries; got 1\\."),
    "too many entries": (changed(codebook=torch.zeros(1, 1 << 17, 1)), "entries; got 131072"),
    "another codebook": (changed(codebook=torch.zeros(1, 4, 1)), "must have 6 bytes per row"),
    "too many codebooks": (changed(codebook=torch.zeros(48, 16, 1)), "must have 24 bytes per row"),
    "an empty codebook": (changed(codebook=torch.zeros(0, 16, 1)), r"must be \(C, K, S\) floats"),
    "whole numbers": (
        changed(codebook=torch.zeros(1, 16, 1, dtype=torch.int32)),
        r"must be \(C, K, S\) floats; got .* int32",
    ),
    "a flat codebook": (changed(codebook=torch.zeros(16)), r"must be \(C, K, S\) floats"),
    "no tensor": (changed(codes=3), "Tensor"),
    "padding": (changed(padding_row=torch.zeros(25)), "size mismatch for padding_row"),
}


@pytest.mark.parametrize("name", WRONG)
def test_refuses_a_state_that_does_not_fit(name):
    state, message = WRONG[name]
    target = made(bits=2) if name == "no tensor" else made()
    before = target.weight
    with pytest.raises(RuntimeError, match=message):
        target.load_state_dict(state)
    if name != "no tensor":  # in that case torch copies the other tensors
        assert torch.equal(target.weight, before)


def test_missing_and_unexpected_names_raise_as_in_torch():
    source = made()
    state = source.state_dict()
    codes = state.pop("codes")
    target = made(bits=2)
    with pytest.raises(RuntimeError, match=r"must have (6|12) bytes per row"):
        target.load_state_dict(state, strict=False)  # a codebook of other codes
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "codes"'):
        made().load_state_dict(state)
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "scale"'):
        made().load_state_dict({**state, "codes": codes, "scale": torch.ones(24)})


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("kind", ["Embedding", "EmbeddingBag"])
def test_a_dense_checkpoint_is_refused_by_name(kind, assign):
    dense = nn.ModuleDict({"emb": getattr(nn, kind)(100, 8)})
    state = dense.state_dict()
    quantize_embeddings_(dense)
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=r"emb\.weight is a dense table.*then call quant") as error:
            dense.load_state_dict(state, strict, assign)
        assert "Missing" not in str(error.value)
        assert "Unexpected" not in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())


def test_error_names_the_module_inside_a_model():
    model = nn.Sequential(other(), nn.Linear(24, 2))
    state = model.state_dict() | {"0.codes": torch.zeros(3, 12, dtype=torch.uint8)}
    with pytest.raises(RuntimeError, match=r"0\.codes and 0\.codebook do not fit this module"):
        model.load_state_dict(state)


def test_deepcopy_shares_no_memory():
    source = made(freeze=False)
    twin = copy.deepcopy(source)
    with torch.no_grad():
        twin.codebook.zero_()
    assert source.weight[5].abs().sum() > 0 and twin.weight[5].abs().sum() == 0


def tied() -> nn.ModuleDict:
    model = nn.ModuleDict({"a": nn.Embedding(300, 24), "b": nn.EmbeddingBag(300, 24, padding_idx=1)})
    model["b"].weight = model["a"].weight
    quantize_embeddings_(model)
    return model


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.half(),
        lambda model: model.to(torch.float64),
        lambda model: model.float(),
        lambda model: copy.deepcopy(model),
        lambda model: model.share_memory(),
        lambda model: (model.load_state_dict(model.state_dict()), model)[1],
    ],
)
def test_tied_tables_stay_tied(change):
    model = change(tied())
    a, b = model["a"], model["b"]
    assert isinstance(a, QuantizedEmbedding) and isinstance(b, QuantizedEmbeddingBag)
    for name in ("codes", "codebook"):
        assert getattr(a, name) is getattr(b, name)
    input = torch.arange(2, 8)
    assert torch.equal(b(input[:, None]), a(input))


def test_tied_tables_stay_tied_when_other_shapes_are_loaded():
    model, wide = (
        tied(),
        nn.ModuleDict({"a": nn.Embedding(300, 24), "b": nn.EmbeddingBag(300, 24, padding_idx=1)}),
    )
    wide["b"].weight = wide["a"].weight
    quantize_embeddings_(wide, bits=8)
    model.load_state_dict(wide.state_dict())
    assert model["a"].codes is model["b"].codes and model["a"].codebook is model["b"].codebook
    input = torch.arange(9)
    assert torch.equal(model["a"](input), wide["a"](input))
