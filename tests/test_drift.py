"""Drift: what rows lose that a codec was not fitted for, beside what was lost when it was measured."""

import math

import pytest
import torch

import gpuzip
from gpuzip import BinaryQuantizer, HalfQuantizer, HeldOut, ProductQuantizer, ScalarQuantizer
from gpuzip.errors import GpuzipError


@pytest.fixture(scope="module")
def codec(real):
    return ProductQuantizer(96, 4).fit(real[:2000], n_iter=5)


@pytest.fixture(scope="module")
def gaussian():
    x = torch.randn(500, 384, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(x)


def mse(codec, x):
    return float((codec.encode(x).decode() - x).double().square().mean())


def test_rows_of_the_same_kind_are_stable(codec, real, real_queries):
    found = codec.drift(real[4000:5000], real[3000:4000])
    assert found.verdict == "stable"
    assert found.ratio == pytest.approx(1, abs=0.05)
    assert found.now_mse == pytest.approx(mse(codec, real[4000:5000]), rel=1e-6)
    assert found.then_mse == pytest.approx(mse(codec, real[3000:4000]), rel=1e-6)
    cosine = torch.cosine_similarity(codec.encode(real[4000:5000]).decode(), real[4000:5000])
    assert found.now_cosine == pytest.approx(float(cosine.double().mean()), rel=1e-6)
    assert found.rows == 1000


def test_rows_of_another_kind_have_drifted(codec, real, gaussian):
    found = codec.drift(gaussian, real[3000:4000])
    assert found.verdict == "drifted"
    assert found.ratio > 1.25
    assert found.sure_ratio <= found.ratio
    assert str(found).startswith(
        f"drifted: {found.ratio:.3g} times the loss at fit time, on 500 new rows (mse "
    )
    assert str(found).endswith("Fit a new codec on rows like these, and encode with it.")


def test_some_drift_lies_between(codec, real, gaussian):
    half = torch.cat([real[4000:4200], gaussian[:200]])
    found = codec.drift(half, real[3000:4000])
    assert found.verdict == "drifting"
    assert "Measure again with more rows" in str(found)


def test_few_rows_are_not_enough_to_be_sure(real):
    """Two rows of ten are far off: a ratio far above 1, which chance may explain."""
    codec = ScalarQuantizer(8).fit(real[:1000])
    few = torch.cat([real[4000:4008], 3 * real[4008:4010]])
    found = codec.drift(few, real[1000:2000])
    assert found.ratio > 1.5
    assert found.sure_ratio < 1.1
    assert found.verdict == "stable"
    with pytest.raises(
        GpuzipError, match=r"new_x must have at least 10 rows, to tell drift from chance; got 9"
    ):
        codec.drift(real[:9], real)


def test_small_rows_have_less_error_and_have_drifted_all_the_same(real):
    """Rows of another scale: the error is smaller, what is left of the direction is less."""
    codec = ProductQuantizer(24, 4).fit(real[:1000], n_iter=3)
    found = codec.drift(0.05 * real[4000:4100], real[2000:3000])
    assert found.now_mse < 0.1 or found.now_mse < found.then_mse
    assert found.now_cosine < found.then_cosine
    assert found.verdict == "drifted"


def test_the_codec_of_a_file_knows_what_its_rows_lost(codec, real, gaussian, tmp_path):
    codec.encode(real[3000:4000]).save(tmp_path / "x.ezip", real[3000:4000])
    stored = gpuzip.open(tmp_path / "x.ezip").codec
    found = stored.drift(real[4000:5000])
    assert found.ratio == pytest.approx(codec.drift(real[4000:5000], real[3000:4000]).ratio, rel=1e-4)
    assert stored.to("cpu").drift(gaussian).verdict == "drifted"
    assert stored.same_as(codec)
    assert stored.config() == codec.config()


def test_a_codec_without_a_measure_says_so(codec, real, tmp_path):
    codec.encode(real[:50]).save(tmp_path / "x.ezip")
    for unknown in (codec, gpuzip.open(tmp_path / "x.ezip").codec):
        with pytest.raises(GpuzipError, match=r"ProductQuantizer\.drift: x must be given, as the earlier"):
            unknown.drift(real)


def test_what_was_held_out_goes_first_and_stays_with_the_codec(codec, real, tmp_path):
    held_out = HeldOut(1000, 0.5, 2 * mse(codec, real[4000:5000]), 10, "cosine", 0.5, 0.9)
    stamped = codec.stamped(held_out)
    assert stamped.drift(real[4000:5000]).ratio < 1
    assert codec.held_out is None
    assert stamped.same_as(codec)
    stamped.encode(real[:50]).save(tmp_path / "x.ezip", real[:50])
    stored = gpuzip.open(tmp_path / "x.ezip").codec
    assert stored.held_out == HeldOut(**held_out.to_json())
    assert stored.file_quality == gpuzip.info(tmp_path / "x.ezip").quality
    assert stored.drift(real[4000:5000]).then_mse == pytest.approx(held_out.mse, rel=1e-5)
    assert stamped.fit(real[:700], n_iter=1).held_out is None


def test_rotated_codecs_keep_what_was_held_out(real):
    held_out = HeldOut(1000, 0.5, 0.25)
    codec = ScalarQuantizer(8, rotation="pca").fit(real[:400]).stamped(held_out)
    again = ScalarQuantizer.restore(codec.config(), codec.state())
    assert again.held_out == codec.to("cpu").held_out == held_out
    assert again.same_as(codec)


def test_exact_codecs_lose_nothing_or_anything(real):
    x = real[:100].half().float()
    others = real[:100] / 3
    codec = HalfQuantizer().fit(x)
    same = codec.drift(x, x)
    assert (same.ratio, same.verdict) == (1, "stable")
    other = codec.drift(others, x)
    assert (other.ratio, other.verdict) == (math.inf, "drifted")
    assert not math.isnan(other.sure_ratio)


def test_zeros_are_no_nan():
    x = torch.zeros(20, 8)
    codec = BinaryQuantizer(levels="sign").fit(x)
    found = codec.drift(x, x)
    assert found.ratio == 1
    assert found.now_cosine == 1  # no row has a direction to lose
    exact = HalfQuantizer().fit(x).drift(x, x)
    assert (exact.ratio, exact.now_cosine, exact.verdict) == (1, 1, "stable")


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda codec, x: ProductQuantizer().drift(x), "this ProductQuantizer is not fitted"),
        (
            lambda codec, x: codec.drift(x[:, :9], x),
            "new_x must have 384 columns, as this codec was fitted on; got 9",
        ),
        (lambda codec, x: codec.drift(x, x[:, :9]), r"drift: x must have 384 columns"),
        (
            lambda codec, x: codec.drift("x", x),
            "new_x must be a torch tensor, a numpy array, or rows of numbers; got str",
        ),
        (lambda codec, x: codec.drift(x[:20] / 0, x), "row 0 holds NaN or inf"),
        (lambda codec, x: codec.drift(x[:0], x), "new_x must have at least 10 rows"),
    ],
)
def test_bad_rows(codec, real, call, match):
    with pytest.raises(GpuzipError, match=match):
        call(codec, real[:50])
