"""Specs: text that says a codec's settings, FAISS's words where it has them."""

import pytest

import gpuzip
from gpuzip import (
    BinaryQuantizer,
    HalfQuantizer,
    LloydMaxQuantizer,
    MixedLloydMaxQuantizer,
    ProductQuantizer,
    RaBitQuantizer,
    ResidualQuantizer,
    Rotation,
    ScalarQuantizer,
    from_spec,
)
from gpuzip.errors import GpuzipError
from tests.test_codec_laws import SETTINGS

WRITTEN = {name: codec for name, codec in SETTINGS.items() if type(codec).spec_words}


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_a_spec_says_all_there_is_to_settings(name):
    again = from_spec(WRITTEN[name].spec)
    assert again.spec == WRITTEN[name].spec
    assert repr(again) == repr(WRITTEN[name])


@pytest.mark.parametrize("name", ["pq-padded", "scalar-pca", "binary-rotated", "lloydmax-mixed-half"])
def test_fitting_changes_no_spec(name, real):
    fitted, again = (codec.fit(real[:650]) for codec in (WRITTEN[name], from_spec(WRITTEN[name].spec)))
    assert fitted.spec == WRITTEN[name].spec
    assert again.same_as(fitted)


def test_a_restored_codec_has_the_spec_that_it_had(real):
    codec = from_spec("OPQ48_192(n_iter=1),L2norm,PQ48x4").fit(real[:650])
    assert type(codec).restore(codec.config(), codec.state()).spec == "OPQ48_192(n_iter=1),L2norm,PQ48x4"


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("PQ48", ProductQuantizer(48, 8)),
        ("PQ48x4np", ProductQuantizer(48, 4)),
        ("PQ8np", ProductQuantizer(8, 8)),
        (" OPQ48 , PQ48x8 ", ProductQuantizer(48, 8, rotation="opq")),
        ("OPQ24,PQ48x8", ProductQuantizer(48, 8, rotation=Rotation("opq", m=24))),
        ("OPQ32_128,PQ32", ProductQuantizer(32, 8, rotation=Rotation("opq", dims=128))),
        ("Balanced48,PQ48x8", ProductQuantizer(48, 8, rotation="balanced")),
        ("OPQ,LloydMax8(block_len=4)", LloydMaxQuantizer(8, 4, rotation="opq")),
        ("PCA128,SQ8", ScalarQuantizer(8, rotation=Rotation("pca", 128))),
        ("PCA128,L2norm,SQ6", ScalarQuantizer(6, rotation=Rotation("pca", 128, normalize=True))),
        ("Truncate256,L2Norm,SQfp16", HalfQuantizer(rotation=Rotation("truncate", 256, normalize=True))),
        ("SQbf16", HalfQuantizer("bfloat16")),
        ("LSH", BinaryQuantizer()),
        ("RR,LSHt", BinaryQuantizer("median", rotation="random")),
        ("RR64,SQ4", ScalarQuantizer(4, rotation=Rotation("random", 64))),
        ("HR,MixedLloydMax1.5", MixedLloydMaxQuantizer(1.5, rotation="hadamard")),
        ("SQ4(range=quantile, tail=1e-3, steps=15)", ScalarQuantizer(4, "quantile", steps=15, tail=0.001)),
        ("PQ36x4(pad=True)", ProductQuantizer(36, 4, pad=True)),
        ("RaBitQ", RaBitQuantizer()),
        ("RaBitQ4", RaBitQuantizer(4)),
        ("RR,RaBitQ4", RaBitQuantizer(4, rotation="random")),
        ("RaBitQ4(rotation=None)", RaBitQuantizer(4, rotation=None)),
        ("RQ8x6", ResidualQuantizer(8, 6)),
        ("PRQ4x3x8(beam=7)", ResidualQuantizer(3, 8, 4, 7)),
    ],
)
def test_words(text, codec):
    assert repr(from_spec(text)) == repr(codec)
    assert repr(from_spec(codec.spec)) == repr(codec)


@pytest.mark.parametrize(
    "text",
    [
        *("PQ48x8", "PQ48", "PQ48x4np", "PQ16x10", "PQ32x5", "SQ8", "SQ6", "SQ4", "SQfp16", "SQbf16", "LSH"),
        *("OPQ48,PQ48x8", "OPQ32_128,PQ32x8", "OPQ32_128,PQ32x4", "PCA128,SQ8", "PCA100,SQ6", "RR,SQ8"),
        *("RR128,SQ4", "PCA64,L2norm,SQfp16", "RR64,LSH", "LSHt"),
    ],
)
@pytest.mark.filterwarnings("ignore:ProductQuantizer.fit")
def test_code_sizes_are_those_of_faiss(text, real):
    faiss = pytest.importorskip("faiss")
    codec = from_spec(text)
    fitted = codec.fit(real[:1024], n_iter=1) if isinstance(codec, ProductQuantizer) else codec.fit(real[:99])
    assert fitted.code_size == faiss.index_factory(384, text).sa_code_size()
    assert fitted.d == 384


@pytest.mark.parametrize("d", [64, 256])
def test_hadamard_rotations_have_faiss_code_sizes_where_no_column_is_added(real, d):
    faiss = pytest.importorskip("faiss")
    fitted = from_spec("HR,SQ8").fit(real[:50, :d])
    try:
        theirs = faiss.index_factory(d, "HR,SQ8").sa_code_size()
    except RuntimeError:
        pytest.skip("this FAISS has no HR")
    assert fitted.code_size == theirs == d


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (7, r"from_spec: text must be a str such as 'OPQ48,PQ48x8'; got 7"),
        ("", r"codec must be one of PQ\{m\}x\{nbits\}, PQ\{m\},.*SQ\{bits\}.*; got '' in ''"),
        ("PQ48x8,", "codec must be .*; got '' in 'PQ48x8,'"),
        ("IVF100,PQ48", r"rotation must be one of PCA\{dims\}.*; got 'IVF100' in 'IVF100,PQ48'"),
        ("PCAR128,SQ8", "rotation must be .*; got 'PCAR128' in 'PCAR128,SQ8'"),
        ("ITQ,LSH", "rotation must be .*; got 'ITQ' in 'ITQ,LSH'"),
        ("L2norm,SQ8", "rotation must be .*; got 'L2norm' in 'L2norm,SQ8'"),
        ("OPQ48", "codec must be .*; got 'OPQ48' in 'OPQ48'"),
        ("opq48,PQ48", "rotation must be .*; got 'opq48' in"),
        ("PQ48x4fs", "codec must be .*; got 'PQ48x4fs' in"),
        ("PQ-4", "codec must be .*; got 'PQ-4'"),
        ("PCA128,RR,SQ8", "only L2norm and a codec may follow a rotation; got 'RR' in 'PCA128,RR,SQ8'"),
        ("PCA128,L2norm,L2norm,SQ8", "may follow a rotation"),
        ("PQ48x8(m=3)", r"settings must be name=value with pad; got 'm=3' in 'PQ48x8\(m=3\)'"),
        ("SQ8(range)", "settings must be name=value with range, per.*; got 'range' in"),
        ("PCA8(kind=opq),SQ8", "settings must be .*; got 'kind=opq' in"),
        ("RaBitQ4(rotation=x)", "the rotation must come before the codec; got"),
        ("HR,RaBitQ4(rotation=None)", "the rotation must come before the codec; got"),
        ("SQ9", r"bits must be a whole number from 1 to 8.*; got 9"),
        ("PQ4.5", r"m must be a whole number.*; got 4\.5"),
        ("PQ48x99", r"nbits must be a whole number from 1 to 16.*; got 99"),
        ("SQ4(range=widest)", r"range must be one of minmax.*; got 'widest'"),
        ("PCA0,SQ8", r"dims must be a whole number of at least 1.*; got 0"),
    ],
)
def test_text_that_is_no_spec(text, match):
    with pytest.raises(GpuzipError, match=match):
        from_spec(text)


def test_settings_that_no_text_says(real):
    with pytest.raises(GpuzipError, match=r"ProductQuantizer\.spec: no word has m=None.*or fit it first"):
        _ = ProductQuantizer().spec
    assert ProductQuantizer(nbits=4).fit(real[:1000]).spec == "PQ24x4"
    given = ScalarQuantizer(range=(-1, 1)).fit(real[:9])
    restored = gpuzip.ScalarQuantizer.restore(given.config(), given.state())
    with pytest.raises(GpuzipError, match=r"ScalarQuantizer\.spec: settings must be text"):
        _ = restored.spec


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("PQ48x4fs", "PQ48x4"),
        ("pq48x4", "PQ48x4"),
        ("PQ48*4", "PQ48x4"),
        ("opq48,PQ48", "OPQ48"),
        ("PCAR64,SQ8", "PCA64"),
        ("sqfp16", "SQfp16"),
        ("Lloyd4", "LloydMax4"),
    ],
)
def test_a_near_miss_is_told_the_word(text, near):
    with pytest.raises(GpuzipError, match=rf"Did you mean {near}\?"):
        from_spec(text)


@pytest.mark.parametrize("text", ["IVF100,PQ48", "", "PQ48x77x9", "HNSW32,PQ8"])
def test_a_far_miss_is_told_no_word(text):
    with pytest.raises(GpuzipError) as error:
        from_spec(text)
    assert "Did you mean" not in str(error.value)
