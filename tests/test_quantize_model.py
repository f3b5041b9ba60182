"""quantize_embeddings_: the modules it swaps, ties, errors and the report."""

import copy
import importlib
import math
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gpuzip.codecs import LloydMaxQuantizer, ProductQuantizer
from gpuzip.errors import GpuzipError
from gpuzip.nn import QuantizedEmbedding, QuantizedEmbeddingBag, quantize_embeddings_


class Words(nn.Module):
    def __init__(self, n: int = 300, d: int = 24) -> None:
        super().__init__()
        self.token = nn.Embedding(n, d, padding_idx=0)
        self.place = nn.Embedding(40, d, max_norm=3.0)
        self.bags = nn.ModuleList([nn.EmbeddingBag(50, d, mode="sum"), nn.Linear(d, d)])
        self.head = nn.Linear(d, n, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        hidden = (
            self.token(input) + self.place(torch.arange(input.shape[1])) + self.bags[0](input % 50)[:, None]
        )
        scores: Tensor = self.head(self.bags[1](hidden))
        return scores


def words(**settings: Any) -> Any:
    torch.manual_seed(0)
    return Words(**settings)


def state(model: nn.Module) -> list[tuple[str, int]]:
    """Return every module and tensor by identity."""
    held = (*model.named_modules(), *model.named_parameters(), *model.named_buffers())
    return [(name, id(one)) for name, one in held]


@pytest.mark.full
def test_swaps_every_embedding_and_keeps_the_output_close():
    model, input = words(), torch.arange(1, 31).view(3, 10)
    want = model(input)
    report = quantize_embeddings_(model, bits=8)
    kinds = [type(m) for m in (model.token, model.place, model.bags[0])]
    assert kinds == [QuantizedEmbedding, QuantizedEmbedding, QuantizedEmbeddingBag]
    assert [row.names for row in report.rows] == [("token",), ("place",), ("bags.0",)]
    assert torch.cosine_similarity(model(input).flatten(), want.flatten(), 0) > 0.9999


def test_keeps_settings_mode_and_dtype():
    model = words().bfloat16().eval()
    model.place.train()
    weight = model.token.weight.detach()
    quantize_embeddings_(model, bits=2)
    token, place, bag = model.token, model.place, model.bags[0]
    assert (token.training, place.training, bag.training) == (False, True, False)
    assert (token.padding_idx, place.padding_idx, place.max_norm, bag.mode) == (0, None, 3.0, "sum")
    assert token(torch.tensor([0, 1])).dtype == torch.bfloat16
    assert torch.equal(token(torch.tensor(0)), weight[0])


@pytest.mark.parametrize(("trainable", "name"), [("codebook", "codebook"), ("scale", "scale")])
def test_trainable_makes_a_parameter(trainable, name):
    model = words()
    quantize_embeddings_(model, trainable=trainable)
    assert {f"token.{name}", f"place.{name}", f"bags.0.{name}"} <= {n for n, _ in model.named_parameters()}
    frozen = words()
    quantize_embeddings_(frozen)
    assert {n.split(".")[0] for n, _ in frozen.named_parameters()} == {"bags", "head"}


def test_filter_fn_receives_names_and_modules():
    model, seen = words(), []

    def only_token(name: str, module: nn.Module) -> bool:
        seen.append((name, type(module)))
        return name == "token"

    place = model.place
    report = quantize_embeddings_(model, filter_fn=only_token)
    assert seen == [("token", nn.Embedding), ("place", nn.Embedding), ("bags.0", nn.EmbeddingBag)]
    assert isinstance(model.token, QuantizedEmbedding) and model.place is place
    assert [row.reason for row in report.rows] == [None, "filter_fn excludes it", "filter_fn excludes it"]


# --- one table in several places


def test_module_in_two_places_becomes_one_module():
    model: Any = nn.ModuleDict({"a": nn.Embedding(300, 24), "inner": nn.Sequential(nn.Linear(2, 2))})
    model["inner"].append(model["a"])
    report = quantize_embeddings_(model)
    assert isinstance(model["a"], QuantizedEmbedding) and model["inner"][1] is model["a"]
    assert [row.names for row in report.rows] == [("a", "inner.1")]


def tied(a: nn.Module, b: nn.Module) -> Any:
    b.weight = a.weight
    return nn.ModuleDict({"a": a, "b": b})


@pytest.mark.parametrize("trainable", [None, "codebook", "scale"])
def test_modules_of_one_weight_share_a_table(trainable):
    model = tied(nn.Embedding(300, 24, padding_idx=3), nn.EmbeddingBag(300, 24, padding_idx=7))
    weight = model["a"].weight.detach().clone()
    report = quantize_embeddings_(model, trainable=trainable)
    a, b = model["a"], model["b"]
    assert a.codes is b.codes and a.codebook is b.codebook and a.scale is b.scale
    assert len(list(model.parameters())) == (trainable is not None)
    assert torch.equal(a.padding_row, weight[3]) and torch.equal(b.padding_row, weight[7])
    (row,) = report.rows
    assert row.names == ("a", "b") and row.bytes_before == 300 * 24 * 4
    assert row.bytes_after == a.codes.nbytes + a.codebook.nbytes + 96 * (3 if trainable == "scale" else 2)


def test_ties_parameters_that_share_memory():
    a = nn.Embedding(300, 24)
    b = nn.Embedding.from_pretrained(a.weight.data)
    assert a.weight is not b.weight
    model: Any = nn.ModuleDict({"a": a, "b": b})
    quantize_embeddings_(model)
    assert model["a"].codes is model["b"].codes


def head_of(model: Any) -> None:
    model.head.weight = model.token.weight


def parameter_of(model: Any) -> None:
    model.register_parameter("table", model.token.weight)


def buffer_of(model: Any) -> None:
    model.register_buffer("table", model.token.weight.data)


def part_of(model: Any) -> None:
    model.part = nn.Embedding.from_pretrained(model.token.weight.data[:50])


@pytest.mark.parametrize(
    ("share", "name"),
    [
        (head_of, "head.weight"),
        (parameter_of, "table"),
        (buffer_of, "table"),
        (part_of, "part.weight|token.weight"),
    ],
)
def test_refuses_a_weight_held_elsewhere_and_changes_nothing(share, name):
    model = words()
    share(model)
    before = state(model)
    with pytest.raises(
        GpuzipError, match=rf"\.weight is also ({name}), .* filter_fn=lambda name, module: name != '"
    ):
        quantize_embeddings_(model)
    assert state(model) == before
    quantize_embeddings_(model, filter_fn=lambda name, module: name not in ("token", "part"))
    assert isinstance(model.place, QuantizedEmbedding) and type(model.token) is nn.Embedding


def test_refuses_to_compress_half_of_a_tied_pair():
    model = tied(nn.Embedding(300, 24), nn.Embedding(300, 24))
    with pytest.raises(GpuzipError, match=r"a\.weight is also b\.weight"):
        quantize_embeddings_(model, filter_fn=lambda name, module: name == "a")
    twice: Any = nn.Sequential(nn.Embedding(300, 24))
    twice.append(twice[0])
    report = quantize_embeddings_(twice, filter_fn=lambda name, module: name == "0")
    assert report.rows[0].reason == "filter_fn excludes it" and type(twice[0]) is nn.Embedding


# --- refused, or left alone


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_names_an_invalid_table_and_changes_nothing(value):
    model = words()
    with torch.no_grad():
        model.bags[0].weight[7, 3] = value
    before = state(model)
    with pytest.raises(GpuzipError, match=r"bags\.0: .* row 7 holds NaN or inf .* filter_fn"):
        quantize_embeddings_(model)
    assert state(model) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codec": ProductQuantizer(7)}, "token: .*m must divide d=24; got 7"),
        (
            {"codec": LloydMaxQuantizer().fit(torch.ones(3, 4))},
            "token: .*must have 4 columns, as this codec was fitted on",
        ),
        ({"bits": 0}, r"bits must be .*; got 0"),
        ({"trainable": "all"}, r"trainable must be .*; got 'all'"),
    ],
)
def test_invalid_settings_change_nothing(settings, message):
    model = words()
    before = state(model)
    with pytest.raises(GpuzipError, match=message):
        quantize_embeddings_(model, **settings)
    assert state(model) == before


@pytest.mark.parametrize("module", [nn.Embedding(9, 4), nn.EmbeddingBag(9, 4)])
def test_refuses_a_model_that_is_an_embedding(module):
    with pytest.raises(GpuzipError, match=rf"Use Quantized{type(module).__name__}\.from_pretrained"):
        quantize_embeddings_(module)


class Scaled(nn.Embedding):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


class Named(nn.Embedding):
    """A subclass that changes nothing."""


class Biased(nn.Embedding):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.register_buffer("bias", torch.ones(3))


def patched() -> nn.Module:
    module = nn.Embedding(300, 24)
    module.forward = lambda input: input  # type: ignore[method-assign]
    return module


def parametrized() -> nn.Module:
    return parametrize.register_parametrization(nn.Embedding(300, 24), "weight", nn.Identity())


def hooked() -> nn.Module:
    module = nn.Embedding(300, 24)
    module.register_forward_hook(lambda *_: None)
    return module


LEFT_ALONE = {
    "forward": (lambda: Scaled(300, 24), "Scaled overrides forward"),
    "patched": (patched, "Embedding overrides forward"),
    "tensors": (lambda: Biased(300, 24), "Biased is parametrized, or has tensors beside its weight"),
    "parametrized": (parametrized, "ParametrizedEmbedding is parametrized"),
    "hooks": (hooked, "it has hooks"),
    "meta": (lambda: nn.Embedding(300, 24, device="meta"), "it is on the meta device"),
    "no rows": (lambda: nn.Embedding(0, 24), "it has no values"),
    "sparse": (lambda: nn.Embedding(300, 24, sparse=True), "sparse or scale_grad_by_freq is set"),
    "frequency": (lambda: nn.Embedding(300, 24, scale_grad_by_freq=True), "sparse or scale_grad_by_freq"),
    "complex": (lambda: nn.Embedding(300, 24, dtype=torch.complex64), "its weight is a Tensor of complex64"),
    "tiny": (lambda: nn.Embedding(2, 3), "it would take 68 bytes"),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_leaves_unsupported_modules_alone_with_a_reason(name):
    make, reason = LEFT_ALONE[name]
    module = make()
    model = nn.Sequential(module, nn.Embedding(300, 24))
    alone, swapped = quantize_embeddings_(model).rows
    assert model[0] is module and isinstance(model[1], QuantizedEmbedding)
    assert alone.reason is not None and alone.reason.startswith(reason)
    assert alone.bytes_before == alone.bytes_after and math.isnan(alone.cosine)
    assert swapped.reason is None


def test_swaps_a_subclass_that_changes_nothing():
    model = nn.Sequential(Named(300, 24))
    quantize_embeddings_(model)
    assert isinstance(model[0], QuantizedEmbedding)


def test_leaves_tables_of_fewer_rows_than_centroids_alone():
    model = nn.Sequential(nn.Embedding(3000, 32), nn.Embedding(200, 32))
    report = quantize_embeddings_(model, codec=ProductQuantizer(4, 8))
    assert [row.reason for row in report.rows] == [None, "it has fewer rows than the 256 centroids"]


def test_takes_a_model_without_embeddings():
    report = quantize_embeddings_(nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)))
    assert report.rows == () and math.isnan(report.ratio)
    assert str(report).splitlines()[-1].split() == ["total", "0", "0"]


def test_second_call_changes_nothing():
    model = words()
    quantize_embeddings_(model)
    before = state(model)
    assert quantize_embeddings_(model).rows == ()
    assert state(model) == before


# --- the report


def test_report_measures_size_and_error(real):
    model: Any = nn.Sequential(nn.Embedding.from_pretrained(real, padding_idx=0), nn.Embedding(0, 4))
    report = quantize_embeddings_(model, bits=2)
    (row, empty), module = report.rows, model[0]
    decoded = module.weight
    assert row.shape == (8000, 384) and empty.shape == (0, 4)
    assert row.mse == pytest.approx(float((decoded - real).square().mean()), rel=1e-4)
    both = decoded.flatten().double(), real.flatten().double()
    assert row.cosine == pytest.approx(float(torch.cosine_similarity(*both, 0)))
    assert (report.bytes_before, report.bytes_after) == (real.nbytes, module.nbytes)
    assert report.ratio == real.nbytes / module.nbytes


def test_report_does_not_count_max_norm_as_error():
    model = nn.Sequential(nn.Embedding(300, 24, max_norm=0.1))
    (row,) = quantize_embeddings_(model, bits=8).rows
    assert row.mse < 1e-3


def test_report_prints_an_aligned_table():
    model = nn.ModuleDict({"tokens": nn.Embedding(3000, 32), "hooked": hooked()})
    lines = str(quantize_embeddings_(model)).splitlines()
    assert lines[0].split("  ")[0] == "embedding"
    assert lines[1].split()[:6] == ["tokens", "3000", "x", "32", "384,000", "48,064"]
    assert lines[2].endswith("left alone: it has hooks, which a replacement would not run")
    assert lines[3].split() == ["total", "412,800", "76,864", "5.37x"]
    end = lines[0].index("bytes after") + len("bytes after")
    assert [line[:end].split()[-1] for line in lines[1:]] == ["48,064", "28,800", "76,864"]


# --- models of other libraries


def bert(kind: str = "BertModel") -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=1000, max_position_embeddings=64, **sizes)
    return getattr(transformers, kind)(config).eval()


def test_keeps_the_output_of_bert_close():
    model, input = bert(), torch.arange(200).view(4, 50)
    with torch.no_grad():
        want = model(input).last_hidden_state
        report = quantize_embeddings_(model, bits=8)
        got = model(input).last_hidden_state
    assert [row.names[0].rpartition(".")[2] for row in report.rows if row.reason is None] == [
        *("word_embeddings", "position_embeddings")
    ]
    assert torch.cosine_similarity(got, want, dim=-1).min() > 0.999
    assert report.ratio > 3


def test_refuses_bert_with_a_tied_head_until_it_is_filtered_out():
    model = bert(kind="BertForMaskedLM")
    before = state(model)
    with pytest.raises(
        GpuzipError, match=r"word_embeddings\.weight is also cls\.predictions\.decoder\.weight"
    ):
        quantize_embeddings_(model)
    assert state(model) == before
    report = quantize_embeddings_(model, filter_fn=lambda name, module: "word" not in name)
    assert report.rows[0].reason == "filter_fn excludes it"


def test_what_save_pretrained_wrote_of_a_compressed_bert_can_be_loaded_as_a_state(tmp_path):
    model, input = bert(), torch.arange(200).view(4, 50)
    quantize_embeddings_(model)
    model.save_pretrained(tmp_path)
    again = bert()
    quantize_embeddings_(again, bits=1)
    state = importlib.import_module("safetensors.torch").load_file(tmp_path / "model.safetensors")
    again.load_state_dict(state)
    assert torch.equal(again(input).last_hidden_state, model(input).last_hidden_state)


def test_models_that_warn_when_saved_can_be_copied_and_pickled(tmp_path):
    model = SavedByItself()
    quantize_embeddings_(model)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.warns(UserWarning, match=r"SavedByItself\.save"):
            assert again.save() is again
    dense = SavedByItself()
    quantize_embeddings_(dense, filter_fn=lambda name, module: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dense.save() is dense


class SavedByItself(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(1000, 8)

    def save(self):
        return self
