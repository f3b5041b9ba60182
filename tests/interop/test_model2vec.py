"""Static models of model2vec with a compressed table, with the real package."""

from typing import Any

import numpy as np
import pytest

import gpuzip
from gpuzip.interop import model2vec as ours
from tests.lazy import Lazy

model2vec, tokenizers = Lazy("model2vec"), Lazy("tokenizers")
pytestmark = pytest.mark.full

TEXTS = ["w1 w2 w7", "w299", "w3 w3 w5 nothing", "", "w1 w2 w8"]


@pytest.fixture(autouse=True)
def installed() -> None:  # not while tests are collected, which imports it for no test
    pytest.importorskip("model2vec", reason="needs the extra test-interop")


def static(quantized: bool = False) -> Any:
    words = {"[UNK]": 0, **{f"w{i}": i for i in range(1, 300)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    random = np.random.default_rng(0)
    rows = random.standard_normal((40 if quantized else 300, 24)).astype(np.float32)
    more = {"weights": random.random(300), "token_mapping": random.integers(0, 40, 300)} if quantized else {}
    return model2vec.StaticModel(rows, tokenizer, normalize=True, language=["en"], max_length=64, **more)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("codec", [None, gpuzip.ProductQuantizer(6, 4), gpuzip.ScalarQuantizer(8)], ids=str)
def test_a_compressed_model_encodes_as_one_of_the_decoded_rows(quantized, codec, tmp_path):
    model = static(quantized)
    small = ours.compress(model, codec)
    assert isinstance(model.embedding, np.ndarray)
    decoded = static(quantized)
    decoded.embedding = np.array(small.embedding)
    want = decoded.encode(TEXTS)
    np.testing.assert_allclose(small.encode(TEXTS), want, atol=1e-6)
    ours.save(small, tmp_path / "once")
    again = ours.load(tmp_path / "once")
    assert np.array_equal(again.encode(TEXTS), small.encode(TEXTS))
    assert (again.dim, again.normalize, again.max_length, again.language) == (24, True, 64, ["en"])
    assert again.vocabulary_quantization == model.vocabulary_quantization
    for ids, theirs in zip(again.encode_as_sequence(TEXTS), decoded.encode_as_sequence(TEXTS), strict=True):
        np.testing.assert_allclose(ids, theirs, atol=1e-6)
    ours.save(again, tmp_path / "once")
    assert np.array_equal(ours.load(tmp_path / "once").encode(TEXTS), small.encode(TEXTS))


def test_the_codes_are_smaller_and_near_and_model2vec_reads_the_decoded_rows(tmp_path):
    model = static()
    small = ours.compress(model)
    assert small.embedding.codes.nbytes < model.embedding.nbytes / 7
    assert (small.encode(TEXTS[:3]) * model.encode(TEXTS[:3])).sum(1).min() > 0.98
    small.save_pretrained(tmp_path)
    dense = model2vec.StaticModel.from_pretrained(tmp_path)
    np.testing.assert_allclose(dense.encode(TEXTS), small.encode(TEXTS), atol=1e-6)


def test_what_is_not_compressed_and_what_is_damaged_is_refused(tmp_path):
    model = static()
    with pytest.raises(gpuzip.GpuzipError, match="must have a compressed table"):
        ours.save(model, tmp_path / "model")
    with pytest.raises(gpuzip.GpuzipError, match="must have a table of floats; got float32"):
        ours.compress(ours.compress(model))
    model.embedding = model.embedding.astype(np.int8)
    with pytest.raises(gpuzip.GpuzipError, match="must have a table of floats; got int8"):
        ours.compress(model)
    ours.save(ours.compress(static()), tmp_path / "model")
    (file,) = (tmp_path / "model").glob("tokenizer-*")
    file.write_text("{}" + " " * (file.stat().st_size - 2))
    with pytest.raises(gpuzip.FormatError, match="does not match its checksum"):
        ours.load(tmp_path / "model")
