"""Codecs fitted to, and codes made of, rows that lie on ranks are those of one process."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpuzip
from gpuzip import distributed
from gpuzip._core.rows import Rows
from gpuzip.codecs.pq import padded
from gpuzip.distributed.codec import packed, unpacked
from gpuzip.training.kmeans import kmeans
from tests.distributed import work
from tests.distributed.shards import Case, cases, rows_of

FEW = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

X = rows_of(500, 4)


def check_sample(ranks: Any, case: Case, n: int, seed: int) -> None:

    want = Rows("test", case.x).sample(n, seed)
    for found, received in ranks.call(work.sample, [(part, n, seed) for part in case.parts()]):
        assert torch.equal(found, want)
        assert received <= (len(case.sizes) - 1) * (n * 4 * case.x.shape[1] + 100)


@FEW
@given(case=cases(2), n=st.integers(1, 80), seed=st.integers(0, 9))
def test_the_sample_is_that_of_one_process(two, case, n, seed):
    check_sample(two, case, n, seed)


@pytest.mark.full
@pytest.mark.parametrize("ranks", [1, 2, 4])
@MANY
@given(data=st.data())
def test_the_sample_of_ranks_is_that_of_one_process(four, ranks, data):
    check_sample(four, data.draw(cases(ranks)), data.draw(st.integers(1, 200)), data.draw(st.integers(0, 9)))


def check_encode(ranks: Any, codec: Any, sizes: list[int]) -> None:
    codec = codec.fit_quietly(X)
    found = ranks.call(work.encode, [(packed(codec), part) for part in X[: sum(sizes)].split(sizes)])
    assert torch.equal(torch.cat([data[:] for data, _ in found]), codec.encode(X[: sum(sizes)]).data[:])
    assert all(received == (len(sizes) - 1) * 24 for _, received in found)


def test_codes_of_two_ranks_are_those_of_one_process(two):
    check_encode(two, gpuzip.ProductQuantizer(m=4, nbits=4, rotation="pca"), [137, 200])
    check_encode(two, gpuzip.RaBitQuantizer(bits=2), [0, 5])


CODECS = [
    gpuzip.ProductQuantizer(m=4),
    gpuzip.ScalarQuantizer(bits=4),
    gpuzip.ResidualQuantizer(m=2, nbits=4),
    gpuzip.LloydMaxQuantizer(2),
    gpuzip.MixedLloydMaxQuantizer(1.5),
    gpuzip.BinaryQuantizer(),
]


@pytest.mark.full
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
@pytest.mark.parametrize("sizes", [[500], [1, 499], [0, 120, 380, 0], [101, 99, 7, 211]])
def test_codes_of_ranks_are_those_of_one_process(four, codec, sizes):
    check_encode(four, codec, sizes)


@pytest.mark.parametrize("n", [400, 5000])
def test_every_rank_has_the_codec_of_one_process(two, n):
    codec = gpuzip.ProductQuantizer(m=4, nbits=3, rotation="balanced")
    first, second = two.call(work.fit, [(codec, part, n) for part in X.split([50, 450])])
    assert first == second
    assert unpacked(first).same_as(codec.fit(distributed.sample(X, n)))
    if n >= len(X):
        assert unpacked(first).same_as(codec.fit(X))


REDUCED = [
    gpuzip.ProductQuantizer(m=4, nbits=4),
    gpuzip.ProductQuantizer(m=3, nbits=3, pad=True, rotation="pca"),
    gpuzip.ProductQuantizer(m=4, nbits=4, rotation=gpuzip.Rotation("balanced", dims=12)),
    gpuzip.ProductQuantizer(m=4, nbits=2, rotation="hadamard"),
]


@pytest.mark.parametrize("codec", [REDUCED[2]], ids=repr)
def test_a_codec_fitted_by_sums_is_the_same_for_one_rank_and_two(two, codec):
    found = two.call(work.fit, [(codec, part, None) for part in X.split([77, 423])])
    assert found == [packed(distributed.fit(codec, X, n=None))] * 2


@pytest.mark.full
@pytest.mark.parametrize("codec", REDUCED, ids=repr)
@pytest.mark.parametrize("sizes", [[500], [1, 499], [0, 120, 380, 0], [101, 99, 7, 293]])
def test_a_codec_fitted_by_sums_is_the_same_for_any_ranks(four, codec, sizes):
    found = four.call(work.fit, [(codec, part, None) for part in X.split(sizes)])
    assert found == [packed(distributed.fit(codec, X, n=None))] * len(sizes)


def test_sums_find_the_centroids_of_one_process_from_the_same_start():
    codec = gpuzip.ProductQuantizer(m=4, nbits=3)
    fitted = distributed.fit(codec, X, n=None)
    assert isinstance(fitted, gpuzip.ProductQuantizer)
    start = distributed.sample(X, 8).view(8, 4, -1).transpose(0, 1).contiguous()
    want = kmeans(padded(X, 4), 4, 8, init=start, n_iter=25).centroids
    torch.testing.assert_close(fitted.centroids, want.half().float(), rtol=1e-3, atol=1e-3)


def test_moments_of_ranks_are_those_of_one_process():
    x = rows_of(4000, 8) * torch.linspace(0.01, 3, 16)
    rotation = distributed.fit(gpuzip.ProductQuantizer(m=4, nbits=4, rotation="pca"), x, n=None).rotation
    assert isinstance(rotation, gpuzip.Rotation)
    want = gpuzip.Rotation("pca").fit(x)
    torch.testing.assert_close(rotation.matrix, want.matrix, rtol=0, atol=1e-3)  # of what float16 keeps


@pytest.mark.parametrize(
    ("codec", "match"),
    [
        (gpuzip.ScalarQuantizer(), "must be a ProductQuantizer"),
        (gpuzip.ProductQuantizer(m=4, rotation="opq", nbits=4), "must be found by sums"),
        (gpuzip.ProductQuantizer(m=5, nbits=4), "m must divide d=16"),
        (gpuzip.ProductQuantizer(m=4, nbits=12), "at least 4096 rows"),
    ],
)
def test_what_cannot_be_fitted_by_sums_is_refused_on_all_ranks(two, codec, match):
    for error in two.outcomes(work.fit, [(codec, part, None) for part in X.split([77, 423])]):
        assert isinstance(error, gpuzip.GpuzipError) and match in str(error)


def test_a_row_that_is_no_number_is_an_error_on_all_ranks(two):
    bad = X.clone()
    bad[400, 3] = float("nan")
    for n in (None, 50_000):
        first, second = two.outcomes(
            work.fit, [(gpuzip.ProductQuantizer(m=4, nbits=4), part, n) for part in bad.split([100, 400])]
        )
        assert "rank 1 failed" in str(first) and "row 300 holds NaN or inf" in str(first)
        assert "row 300 holds NaN or inf" in str(second)
