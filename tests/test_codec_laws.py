"""What holds for every codec in the registry, whatever it does inside."""

import json
import sys
import types
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

import gpuzip
from gpuzip import Codes, Rotation
from gpuzip import open as open_codes
from gpuzip.codecs import (
    CODECS,
    BinaryQuantizer,
    HalfQuantizer,
    LloydMaxQuantizer,
    MixedLloydMaxQuantizer,
    ProductQuantizer,
    RaBitQuantizer,
    ResidualQuantizer,
    ScalarQuantizer,
    codec_class,
    registry,
)
from gpuzip.errors import FormatError, GpuzipError, NotFittedError, UnknownCodecError
from gpuzip.ops import decode, use_loops

# One small setting a codec; a codec that is not here fails `test_every_codec_is_tested`.
SETTINGS = {
    "pq": ProductQuantizer(m=48, nbits=4),
    "scalar": ScalarQuantizer(),
    "scalar-4": ScalarQuantizer(bits=4, range="mse"),
    "scalar-3": ScalarQuantizer(bits=3, range="quantile", per="tensor"),
    "scalar-6": ScalarQuantizer(bits=6, symmetric=True, signed=True),
    "binary": BinaryQuantizer(),
    "binary-median": BinaryQuantizer("median"),
    "lloydmax": LloydMaxQuantizer(2),
    "lloydmax-dim": LloydMaxQuantizer(1, per="dim"),
    "lloydmax-group": LloydMaxQuantizer(5, per=96),
    "lloydmax-block": LloydMaxQuantizer(8, block_len=4),
    "lloydmax-mixed": MixedLloydMaxQuantizer(2.3),
    "lloydmax-mixed-half": MixedLloydMaxQuantizer(0.5),
    "pq-opq": ProductQuantizer(m=48, nbits=4, rotation=Rotation("opq", n_iter=2)),
    "pq-padded": ProductQuantizer(m=36, nbits=4, pad=True, rotation=Rotation("balanced", dims=200)),
    "scalar-pca": ScalarQuantizer(bits=4, rotation=Rotation("pca", dims=128)),
    "scalar-truncated": ScalarQuantizer(rotation=Rotation("truncate", dims=256)),
    "binary-rotated": BinaryQuantizer("dim_mean", rotation="random"),
    "lloydmax-hadamard": LloydMaxQuantizer(2, rotation="hadamard"),
    "lloydmax-mixed-pca": MixedLloydMaxQuantizer(1, rotation="pca"),
    "half-pca": HalfQuantizer(rotation=Rotation("pca", dims=192)),
    "residual": ResidualQuantizer(4, nbits=4),
    "residual-split": ResidualQuantizer(5, nbits=3, nsplits=6, beam=2, rotation="balanced"),
    "rabitq": RaBitQuantizer(),
    "rabitq-4": RaBitQuantizer(4),
    "rabitq-7": RaBitQuantizer(7, rotation=None),
    "rabitq-pca": RaBitQuantizer(2, rotation=Rotation("pca", dims=203)),
    "half": HalfQuantizer(),
    "half-bfloat16": HalfQuantizer("bfloat16"),
}


def example_of_the_docs():
    """The codec that docs/guides/own-codec.md writes, which registers itself."""
    page = (Path(__file__).parents[1] / "docs" / "guides" / "own-codec.md").read_text()
    block = page.partition("```python\n")[2].partition("```")[0]
    module = types.ModuleType("own_codec")
    sys.modules[module.__name__] = module
    exec(block, vars(module))
    return module.RowScaledQuantizer()


SETTINGS["of-the-docs"] = example_of_the_docs()


#: The fast set has one setting of each kind of code, of rotations and of the docs' example.
FAST = {
    *("pq", "pq-opq", "pq-padded", "scalar", "scalar-4", "scalar-pca", "binary", "half", "of-the-docs"),
    *("lloydmax", "lloydmax-block", "lloydmax-mixed-half", "residual", "rabitq", "rabitq-4"),
}
EACH = [pytest.param(name, marks=() if name in FAST else pytest.mark.full) for name in sorted(SETTINGS)]


@pytest.fixture(scope="module", params=EACH)
def codec(request, real):
    return SETTINGS[request.param].fit(real[:1000], seed=0)


@pytest.fixture(params=EACH)
def unfitted(request):
    return SETTINGS[request.param]


def test_every_codec_is_tested():
    ours = {name: codec for name, codec in SETTINGS.items() if name != "of-the-docs"}
    assert {codec.id for codec in ours.values()} == set(CODECS)
    assert all(codec_class(codec.id) is type(codec) for codec in SETTINGS.values())


def test_only_a_codec_with_an_id_of_its_own_is_registered():
    class Other(ProductQuantizer):
        id = "pq"

    wrong: Any
    for wrong in (Other, object, ProductQuantizer(), "pq"):
        with pytest.raises(GpuzipError, match="register_codec: "):
            gpuzip.register_codec(wrong)
    assert gpuzip.register_codec(ProductQuantizer) is ProductQuantizer


def test_a_class_that_is_written_anew_takes_its_own_place():
    anew = example_of_the_docs()
    assert codec_class("row-scaled") is type(anew) is not type(SETTINGS["of-the-docs"])
    assert gpuzip.register_codec(type(SETTINGS["of-the-docs"])) is codec_class("row-scaled")


def test_codecs_of_installed_packages_are_known(monkeypatch):
    point = SimpleNamespace(name="x", value="a:B", load=lambda: Offered)

    class Offered(ProductQuantizer):
        id = "offered"
        spec_words: ClassVar = {"Offered{m}": {}}

    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] * (group == "gpuzip.codecs"))
    assert type(gpuzip.from_spec("Offered8")) is Offered
    assert codec_class("offered") is Offered
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(point, "load", lambda: object)
    with pytest.raises(GpuzipError, match=r"The codec 'x' of an installed package \(a:B\) cannot be loaded"):
        codec_class("offered")


def test_unknown_ids_are_refused():
    with pytest.raises(UnknownCodecError, match=r"codec must be one of pq, .*; got 'zip'"):
        codec_class("zip")


def test_round_trip(codec, real):
    x = real[:1000]
    y = codec.encode(x).decode()
    assert y.shape == x.shape
    assert float(torch.cosine_similarity(x, y).mean()) > 0.5


def test_encoding_is_idempotent(codec, real):
    """A decoded row is its own nearest code, so encoding it again changes no decoded row."""
    if isinstance(codec, ResidualQuantizer):
        pytest.skip("a beam may leave out the very sum that a row is")
    y = codec.encode(real[:1000]).decode()
    torch.testing.assert_close(codec.encode(y).decode(), y)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_rows(codec, real, n):
    codes = codec.encode(real[:n])
    assert codes.data.shape == (n, codec.code_size)
    assert codes.decode().shape == (n, 384)
    assert torch.equal(codes.data[:], codec.encode(real[:64]).data[:n])


def test_what_is_fitted_on_and_encoded_is_not_changed(unfitted, real):
    x = real[:1000].clone()
    unfitted.fit(x).encode(x).quality(x)
    assert torch.equal(x, real[:1000])


def test_rows_are_decoded_alone(codec, real):
    codes = codec.encode(real[:300].half())
    ids = [7, 299, 0, 7, -1]
    assert torch.equal(codes.rows(ids), codes.decode()[ids])
    assert torch.equal(codes.rows(torch.arange(300)), codes.decode())
    assert codes.rows([]).shape == (0, 384)
    for wrong in ([300], [0, -301]):
        with pytest.raises(
            IndexError, match=r"Codes\.rows: ids must be from -300 to 299, as there are 300 rows; got"
        ):
            codes.rows(wrong)
    with pytest.raises(TypeError, match="a list or tensor of row numbers"):
        codes.rows(3)


def test_decoding_is_a_look_up_or_says_that_it_is_none(codec, real):
    codes = codec.encode(real[:50])
    no_table = HalfQuantizer | MixedLloydMaxQuantizer | ResidualQuantizer | RaBitQuantizer
    if isinstance(codec, no_table) or codec.rotation is not None or codec.id == "row-scaled":
        with pytest.raises(GpuzipError, match=r"must decode by a look-up table|must have no rotation"):
            codec.as_table(codes.data)
        return
    table, data = codec.as_table(codes.data)
    y = decode(data, table.codebook, None, table.share)[:, :384]
    torch.testing.assert_close(y, codes.decode(), rtol=1e-6, atol=1e-7)


def test_strides_do_not_matter(codec, real):
    wide = torch.zeros(200, 768)
    wide[::2, ::2] = real[:100]
    assert torch.equal(codec.encode(wide[::2, ::2]).data[:], codec.encode(real[:100]).data[:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(codec, real, dtype):
    codes = codec.encode(real[:100].to(dtype))
    assert torch.equal(codes.data[:], codec.encode(real[:100].to(dtype).float()).data[:])
    assert codes.decode().dtype == dtype


def test_config_and_state_are_all_there_is(codec, real):
    config = json.loads(json.dumps(codec.config()))
    again = type(codec).restore(config, codec.state())
    assert again.same_as(codec)
    assert again.config() == codec.config()
    assert torch.equal(again.encode(real[:100]).data[:], codec.encode(real[:100]).data[:])


def test_state_is_counted(codec):
    assert codec.nbytes == sum(t.nbytes for t in codec.state().values())


def test_file(codec, real, tmp_path):
    codes = codec.encode(real[:100])
    codes.save(tmp_path / "x.ezip")
    back = open_codes(tmp_path / "x.ezip", verify=True)
    assert back.codec.same_as(codec)
    assert torch.equal(back.data[:], codes.data[:])


def test_nonsense_is_refused(codec):
    with pytest.raises(FormatError):
        type(codec).restore({**codec.config(), "surprise": 1}, codec.state())
    with pytest.raises(FormatError):
        type(codec).restore(codec.config(), {})
    for name, tensor in codec.state().items():
        with pytest.raises(FormatError):
            type(codec).restore(codec.config(), {**codec.state(), name: tensor[..., :0]})


def test_unfitted_codecs_say_so(unfitted, real):
    plain = unfitted
    for use in (
        lambda: plain.encode(real[:5]),
        lambda: plain.d,
        lambda: plain.code_size,
        plain.state,
        plain.config,
    ):
        with pytest.raises(NotFittedError, match=r"not fitted\. Call \.fit\(x\)"):
            use()


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("Q", [1, 150])
def test_scores_are_those_of_the_decoded_rows(codec, real, real_queries, metric, Q):
    if not codec.scores_are_of_decoded_rows:
        pytest.skip("estimates of the source's scores; test_rabitq.py has their laws")
    codes, queries = codec.encode(real), real_queries[:Q]
    values, ids = codes.search(queries, 5, metric)
    rows = codes.decode()[ids]
    want = {
        "l2": lambda: (rows - queries[:, None]).square().sum(-1),
        "ip": lambda: (rows * queries[:, None]).sum(-1),
        "cosine": lambda: torch.cosine_similarity(rows, queries[:, None], dim=-1),
    }[metric]()
    torch.testing.assert_close(values, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("Q", [1, 150])
def test_plain_torch_scores_alike_where_a_codec_says_so(codec, real, real_queries, Q):
    if not codec.searches_alike:
        pytest.skip("its scores are sums in another order")
    codes = codec.encode(real[:3000])
    for metric in codec.metrics:
        found = codes.search(real_queries[:Q], 50, metric)
        with use_loops(False):
            want = codes[:].search(real_queries[:Q], 50, metric)
        assert torch.equal(found.values, want.values)
        assert torch.equal(found.ids, want.ids)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_codes_up_to_ties(codec, real, real_queries):
    there = codec.to("cuda")
    ours, theirs = codec.encode(real), there.encode(real.cuda()).to("cpu")
    assert float((ours.data[:] != theirs.data[:]).double().mean()) < 1e-5
    values, _ = there.encode(real.cuda()).search(real_queries.cuda(), 10)
    torch.testing.assert_close(values.cpu(), ours.search(real_queries, 10)[0], rtol=1e-4, atol=1e-5)


def test_it_is_shown_as_it_is_made(unfitted):
    again = eval(repr(unfitted), {**vars(gpuzip), type(unfitted).__name__: type(unfitted)})
    assert type(again) is type(unfitted)
    assert repr(again) == repr(unfitted)
    for setting in fields(unfitted):
        if setting.repr and setting.name != "rotation":
            assert getattr(again, setting.name) == getattr(unfitted, setting.name)
    assert (unfitted.rotation is not None) == ("rotation=Rotation" in repr(unfitted))


def test_codes_of_a_codec_are_codes(codec, real):
    assert isinstance(codec.encode(real[:3]), Codes)
