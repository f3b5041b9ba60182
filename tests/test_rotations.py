"""Rotations: orthonormal, as good as they say, stored small, and refused where they lie."""

import math
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import ProductQuantizer, Rotation, ScalarQuantizer
from gpuzip.errors import FormatError, GpuzipError, NotFittedError
from gpuzip.rotations import KINDS
from gpuzip.rotations.drawn import hadamard
from gpuzip.rotations.spectrum import balanced, principal

WRONG: dict[str, Any] = {
    name: {name: value} for name, value in (("m", 2.5), ("normalize", 1), ("rotation", 3))
}
KEPT = [kind for kind in KINDS if kind != "truncate"]


@pytest.fixture(scope="module")
def uneven():
    """(2000, 24): correlated columns of very different variance about a mean that is not 0."""
    g = torch.Generator().manual_seed(5)
    scale = 1.5 ** -torch.arange(24.0)
    return torch.randn(2000, 24, generator=g) * scale @ torch.randn(24, 24, generator=g) + 0.5


def fitted(kind, x, dims=None, **settings):
    return Rotation(kind, dims=dims or (8 if kind == "truncate" else None), m=4, **settings).fit(x, seed=3)


@pytest.mark.parametrize("dims", [None, 10, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_orthonormal(kind, dims, uneven):
    if dims == 1 and kind in ("balanced", "opq"):
        pytest.skip("four sub-spaces need four columns")
    rotation = fitted(kind, uneven, dims)
    matrix = rotation.matrix.double()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix)).double(), rtol=0, atol=1e-6)
    assert (rotation.width, rotation.d) == (dims or (8 if kind == "truncate" else 24), 24)


@pytest.mark.parametrize("kind", KEPT)
def test_lengths_and_products_stay_and_rows_come_back(kind, uneven):
    rotation = fitted(kind, uneven)
    y = rotation.apply(uneven)
    torch.testing.assert_close(y @ y.T, uneven @ uneven.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rotation.reverse_transform(y), uneven, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_repeats_and_what_is_stored_is_all_there_is(kind, uneven):
    one, two = fitted(kind, uneven), fitted(kind, uneven)
    assert torch.equal(one.matrix, two.matrix)
    again = Rotation.restore(one.config(), one.state())
    assert torch.equal(again.matrix, one.matrix)
    assert again.config() == one.config()


@pytest.mark.parametrize("kind", ["random", "hadamard"])
def test_another_seed_draws_another(kind, uneven):
    one, two = (Rotation(kind).fit(uneven, seed=seed).matrix for seed in (0, 1))
    assert not torch.equal(one, two)


def test_a_file_holds_16_bit_matrices_and_signs_in_bytes(real):
    stored = {kind: fitted(kind, real[:500]).state() for kind in ("pca", "hadamard", "truncate")}
    assert {name: t.nbytes for name, t in stored["pca"].items()} == {"matrix": 2 * 384 * 384}
    assert {name: t.nbytes for name, t in stored["hadamard"].items()} == {"signs": 4 * 384}
    assert stored["truncate"] == {}
    codec = ProductQuantizer(m=8, nbits=3).fit(real[:500])
    turned = ProductQuantizer(m=8, nbits=3, rotation="pca").fit(real[:500])
    assert turned.nbytes == codec.nbytes + 2 * 384 * 384


def test_principal_directions_are_uncorrelated_and_in_order(uneven):
    directions, variances = principal(uneven, 24)
    y = uneven.double() @ directions.T
    covariance = torch.cov(y.T, correction=0)
    torch.testing.assert_close(covariance, variances.diag(), rtol=1e-6, atol=1e-9)
    assert bool((variances.diff() <= 0).all())


@pytest.mark.parametrize("dims", [1, 5, 20])
def test_kept_directions_lose_as_little_as_singular_vectors(dims, uneven):
    directions, _ = principal(uneven, dims)
    x = uneven.double()
    lost = (x - x @ directions.T @ directions).square().sum()
    least = torch.linalg.svdvals(x)[dims:].square().sum()
    torch.testing.assert_close(lost, least, rtol=1e-6, atol=1e-9)


def test_the_directions_are_those_of_faiss(real):
    """FAISS subtracts the mean first; directions of distinct variance are the same up to sign."""
    x = real[:2000]
    theirs = faiss.PCAMatrix(384, 384)
    theirs.train(x.numpy())
    vectors = torch.from_numpy(faiss.vector_to_array(theirs.A).reshape(384, 384))[:5]
    agreement = (principal(x, 384)[0][:5].float() * vectors).sum(1).abs()
    assert bool((agreement > 0.999).all())


@pytest.mark.parametrize(("dims", "m"), [(24, 4), (24, 24), (22, 4), (10, 3)])
def test_variances_are_dealt_out_as_a_plain_loop_does(dims, m, uneven):
    directions, variances = principal(uneven, dims)
    size = math.ceil(dims / m)
    room = [max(0, min(size, dims - size * i)) for i in range(m)]
    parts: list[list[int]] = [[] for _ in range(m)]
    products = [1.0] * m
    for i in range(dims):
        free = [j for j in range(m) if len(parts[j]) < room[j]]
        j = min(free, key=lambda j: products[j])
        parts[j].append(i)
        products[j] *= float(variances[i] / variances[-1])
    want = directions[[i for part in parts for i in part]]
    torch.testing.assert_close(balanced(uneven, dims, m), want)


@pytest.mark.full
def test_each_rotation_is_better_than_the_one_before(real):
    """On rows never seen, too, but for what 384 x 384 numbers learn of 6,000 rows by heart."""
    train, test = real[:6000], real[6000:]

    def errors(rotation):
        pq = ProductQuantizer(m=48, nbits=4, rotation=rotation).fit(train, seed=0)
        return [float((pq.encode(x).decode() - x).square().mean()) for x in (train, test)]

    plain, dealt, optimal = errors(None), errors("balanced"), errors("opq")
    assert dealt[0] < 0.75 * plain[0]
    assert dealt[1] < 0.75 * plain[1]
    assert optimal[0] < dealt[0]
    assert optimal[1] < 1.02 * dealt[1]


@pytest.mark.parametrize("D", [1, 2, 8, 64])
def test_hadamard_is_the_product_of_its_definition(D):
    x = torch.randn(5, D, generator=torch.Generator().manual_seed(D), dtype=torch.float64)
    signs = torch.zeros((1, D), dtype=torch.bool)
    want = torch.zeros_like(x)
    for i in range(D):
        for j in range(D):
            want[:, i] += x[:, j] * (-1) ** bin(i & j).count("1") / D**0.5
    torch.testing.assert_close(hadamard(x, signs), want)


@pytest.mark.parametrize("D", [3, 100, 384])
def test_hadamard_spreads_a_single_value_over_all_columns(D):
    rotation = Rotation("hadamard").fit(torch.zeros(1, D), seed=0)
    assert float(rotation.apply(torch.eye(D)).abs().max()) < 6 * D**-0.5


def test_truncated_rows_are_the_first_columns_of_length_1(real):
    rotation = Rotation("truncate", dims=128, normalize=True).fit(real)
    want = torch.nn.functional.normalize(real[:, :128])
    torch.testing.assert_close(rotation.apply(real), want)
    codec = ScalarQuantizer(rotation=rotation).fit(real)
    back = codec.encode(real).decode()
    assert back.shape == real.shape
    assert not bool(back[:, 128:].any())
    torch.testing.assert_close(back[:, :128], want, rtol=0, atol=0.01)


def test_rows_of_length_1_ignore_the_length_of_the_source(real):
    codec = ScalarQuantizer(rotation=Rotation("pca", normalize=True)).fit(real)
    scaled = real[:50] * torch.linspace(0.1, 30, 50)[:, None]
    of_scaled, of_rows = codec.encode(scaled).decode(), codec.encode(real[:50]).decode()
    torch.testing.assert_close(of_scaled, of_rows, atol=0.01, rtol=0)


def test_a_row_has_the_same_code_beside_any_others(real):
    codec = gpuzip.HalfQuantizer(rotation="pca").fit(real)
    alone = torch.cat([codec.encode(row[None]).data for row in real[:40]])
    assert torch.equal(alone, codec.encode(real).data[:40])


def test_a_fitted_rotation_serves_another_codec(real):
    rotation = Rotation("pca", dims=64).fit(real)
    codec = ScalarQuantizer(rotation=rotation).fit(real)
    assert isinstance(codec.rotation, Rotation)
    assert torch.equal(codec.rotation.matrix, rotation.matrix)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, np.float32])
def test_any_float_rows(dtype, uneven):
    x = uneven.numpy() if dtype is np.float32 else uneven.to(dtype)
    assert fitted("pca", x).matrix.dtype == torch.float32


@pytest.mark.parametrize("n", [1, 2, 23])
@pytest.mark.parametrize("kind", KEPT)
def test_fewer_rows_than_columns(kind, n, uneven):
    matrix = fitted(kind, uneven[:n], n_iter=2).matrix
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(24), rtol=0, atol=1e-5)


def test_rows_that_are_all_alike(uneven):
    for x in (torch.zeros(50, 24), uneven[:1].expand(50, -1)):
        matrix = fitted("opq", x, n_iter=2).matrix
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(24), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Rotation("turn"), r"kind must be one of pca, balanced.*; got 'turn'"),
        (lambda: Rotation("pca", dims=0), r"dims must be a whole number of at least 1.*; got 0"),
        (lambda: Rotation("pca", **WRONG["m"]), r"m must be a whole number.*; got 2.5"),
        (lambda: Rotation("opq", n_iter=-1), r"n_iter must be a whole number of at least 0.*; got -1"),
        (lambda: Rotation("pca", **WRONG["normalize"]), "normalize must be True or False; got 1"),
        (lambda: Rotation("truncate"), "dims must be given for 'truncate'"),
        (lambda: ProductQuantizer(rotation="turn"), r"kind must be .*; got 'turn'"),
        (
            lambda: ProductQuantizer(**WRONG["rotation"]),
            "rotation must be a Rotation, None or one of .*; got 3",
        ),
    ],
)
def test_settings_that_make_no_sense(make, match):
    with pytest.raises(GpuzipError, match=match):
        make()


@pytest.mark.parametrize(
    ("rotation", "match"),
    [
        (Rotation("pca", dims=25), "dims must be at most 24, the columns of x; got 25"),
        (Rotation("opq"), "m must be given for 'opq', as this codec has no sub-spaces"),
        (Rotation("balanced", m=25), "m must be at most 24, the columns that are kept; got 25"),
    ],
)
def test_rows_that_do_not_fit(rotation, match, uneven):
    with pytest.raises(GpuzipError, match=match):
        ScalarQuantizer(rotation=rotation).fit(uneven)


def test_no_rows_and_rows_with_nan(uneven):
    with pytest.raises(GpuzipError, match="must have at least one row"):
        Rotation("pca").fit(uneven[:0])
    with pytest.raises(GpuzipError, match="row 7 holds NaN"):
        Rotation("pca").fit(uneven.index_fill(0, torch.tensor([7]), math.nan))


def test_what_is_not_fitted_says_so():
    with pytest.raises(NotFittedError, match=r"Rotation: it is not fitted. Call \.fit\(x\)"):
        _ = Rotation("pca").matrix
    with pytest.raises(NotFittedError):
        _ = ScalarQuantizer(rotation="pca").d


def test_a_rotated_codec_is_no_table(uneven):
    codec = ScalarQuantizer(rotation="pca").fit(uneven)
    with pytest.raises(GpuzipError, match=r"ScalarQuantizer\.as_table: the codec must have no rotation"):
        codec.as_table(codec.encode(uneven).data)


def test_codes_of_rotated_rows_are_not_handed_on_as_values(real):
    codes = ScalarQuantizer(rotation="pca").fit(real).encode(real)
    with pytest.raises(GpuzipError, match="to_sentence_transformers: the codec must have no rotation"):
        gpuzip.to_sentence_transformers(codes, "uint8")
    assert gpuzip.to_sentence_transformers(codes, "float32").shape == real.shape
    with pytest.raises(GpuzipError, match="to_faiss: a ScalarQuantizer that rotates rows"):
        gpuzip.to_faiss(codes.codec)


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("dims", [None, 128])
def test_faiss_finds_the_same_neighbours(metric, dims, real, real_queries):
    pq = ProductQuantizer(m=32, nbits=4, rotation=Rotation("balanced", dims=dims)).fit(real)
    codes = pq.encode(real)
    values, ids = gpuzip.to_faiss(codes, metric).search(real_queries.numpy(), 5)
    ours, own = codes.search(real_queries, 5, metric)
    assert float((torch.from_numpy(ids) == own).double().mean()) > 0.99  # but for ties
    if dims is None or metric == "ip":
        torch.testing.assert_close(torch.from_numpy(values), ours, rtol=1e-4, atol=1e-5)


LIES: dict[str, tuple[str, dict[str, Any], Callable[[dict[str, torch.Tensor]], Any]]] = {
    "a matrix that is no rotation": ("pca", {}, lambda s: {"matrix": s["matrix"] * 2}),
    "a matrix of another shape": ("pca", {}, lambda s: {"matrix": s["matrix"][:, :-1]}),
    "a matrix of float32": ("pca", {}, lambda s: {"matrix": s["matrix"].float()}),
    "a rest of another shape": ("pca", {}, lambda s: {**s, "rest": s["matrix"][:, :-1]}),
    "a rest that is no rounding": ("pca", {}, lambda s: {**s, "rest": s["matrix"] * 0 + torch.nan}),
    "no matrix": ("pca", {}, lambda s: {}),
    "signs that are none": ("hadamard", {}, lambda s: {"signs": s["signs"] + 1}),
    "a round too few": ("hadamard", {}, lambda s: {"signs": s["signs"][1:]}),
    "tensors of a cut": ("truncate", {}, lambda s: {"matrix": torch.eye(8, 24).half()}),
    "another kind": ("pca", {"kind": "turn"}, dict),
    "more columns kept than there are": ("pca", {"dims": 99}, dict),
    "columns that are no number": ("pca", {"d": "24"}, dict),
    "a setting too many": ("pca", {"more": 1}, dict),
}


def test_a_given_matrix_is_stored_all_but_exactly():
    matrix = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(0)).double())[0]
    rotation = Rotation.given("random", matrix[:8].float())
    assert (rotation.width, rotation.d, rotation.dims) == (8, 24, 8)
    assert float((rotation.matrix - matrix[:8]).abs().max()) < 3e-7
    again = Rotation.restore(rotation.config(), rotation.state())
    assert torch.equal(again.matrix, rotation.matrix)


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused(lie, uneven):
    kind, settings, change = LIES[lie]
    rotation = fitted(kind, uneven)
    with pytest.raises(FormatError, match="rotation: "):
        Rotation.restore(rotation.config() | settings, change(rotation.state()))


def test_a_rotation_of_another_codec_is_refused(uneven):
    codec = ScalarQuantizer(rotation="pca").fit(uneven)
    other = ScalarQuantizer(rotation=Rotation("pca", dims=12)).fit(uneven)
    turn = {name: t for name, t in other.state().items() if name.startswith("rotation.")}
    with pytest.raises(FormatError, match="the rotation must keep 24 columns; it keeps 12"):
        ScalarQuantizer.restore(
            codec.config() | {"rotation": other.config()["rotation"]}, codec.state() | turn
        )
    bare = {name: value for name, value in codec.config().items() if name != "rotation"}
    with pytest.raises(FormatError, match="rotation must have settings for"):
        ScalarQuantizer.restore(bare, codec.state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_turns_rows_alike(kind, uneven):
    rotation = fitted(kind, uneven.cuda())
    assert rotation.matrix.is_cuda
    there = Rotation.restore(rotation.config(), rotation.state(), "cuda")
    torch.testing.assert_close(there.apply(uneven.cuda()).cpu(), rotation.apply(uneven.cuda()).cpu())
