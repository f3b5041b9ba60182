"""nanopq's suite, restated on ProductQuantizer, rotation="opq" and ops.adc_scan.

Peer: matsui528/nanopq, commit 898fad8 (0.2.2, 2025-06-07); MIT.
Cases: 16, of which 16 apply, some of them in part:

- nanopq takes any number Ks of centroids. Here it is 2**nbits, at most 2**16, so 10 becomes 16 and 20 becomes
  32, and codes are packed bytes of nbits each, not uint8, uint16 or uint32 (test_instantiate).
- `==` is `codec.same_as` for fitted codecs, and equal `spec` for others (test_eq).
- nanopq starts OPQ with eigenvectors if asked to; here it always does. The case draws even rows, of which no
  rotation makes better codes but by chance; uneven ones take their place (test_parametric_init).
- nanopq refuses to give OPQ to FAISS; here its codes become an IndexPreTransform (test_nanopq_to_faiss).
- The codebook is rounded to float16's precision, so the mean error of an inner product is 1e-3 and not 1e-7
  (test_ip).
"""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip import GpuzipError, ProductQuantizer, Rotation
from gpuzip.ops import adc_scan, unpack_bits
from tests.lazy import Lazy
from tests.peers.draws import decoded_error, squared_error, uniform

pytestmark = pytest.mark.full

faiss = Lazy("faiss")

N, D, M, NBITS = 100, 12, 4, 4
KINDS = [None, "opq"]


@pytest.fixture(scope="module")
def rows() -> Tensor:
    return uniform(N, D)


def fitted(x: Tensor, rotation: Any = None, m: int = M, nbits: int = NBITS) -> ProductQuantizer:
    return ProductQuantizer(m, nbits, rotation=rotation).fit(x, min_points_per_centroid=1)


def table(codec: ProductQuantizer, query: Tensor, metric: str) -> Tensor:
    """(1, M, K): the look-up table of one query (nanopq's dtable)."""
    turned = query if codec.rotation is None else codec.rotation.apply(query[None])[0]  # type: ignore[union-attr]
    parts = turned.view(codec.centroids.shape[0], 1, -1)
    if metric == "ip":
        return (codec.centroids * parts).sum(2)[None]
    return (codec.centroids - parts).square().sum(2)[None]


@pytest.mark.parametrize(("nbits", "bytes_per_row"), [(8, 4), (9, 5), (16, 8)])
def test_a_code_of_any_bits_is_packed(nbits, bytes_per_row):
    x = torch.randn(1 << nbits, 8, generator=torch.Generator().manual_seed(0))
    codec = ProductQuantizer(4, nbits).fit(x, n_iter=0, min_points_per_centroid=1)
    assert codec.code_size == bytes_per_row
    assert codec.encode(x[:50]).data.shape == (50, bytes_per_row)


def test_more_centroids_than_a_code_of_16_bits_has_are_refused():
    with pytest.raises(GpuzipError, match=r"nbits must be .*; got 17"):
        ProductQuantizer(4, 17)


@pytest.mark.parametrize("rotation", KINDS)
def test_fit_gives_a_codebook_per_sub_space_and_can_be_chained(rows, rotation):
    codec = fitted(rows, rotation)
    assert codec.centroids.shape == (M, 1 << NBITS, D // M)
    assert torch.equal(codec.centroids, fitted(rows, rotation).centroids)


@pytest.mark.parametrize("rotation", KINDS)
def test_codecs_of_equal_settings_and_codebooks_are_the_same(rows, rotation):
    codecs = [ProductQuantizer(M, nbits, rotation=rotation) for nbits in (NBITS, NBITS, NBITS + 1)]
    assert codecs[0].spec == codecs[1].spec == copy.deepcopy(codecs[0]).spec != codecs[2].spec
    one, other, finer = (codec.fit(rows, min_points_per_centroid=1) for codec in codecs)
    assert one.same_as(one) and one.same_as(other) and one.same_as(copy.deepcopy(one))
    assert not one.same_as(finer) and not one.same_as(codecs[0])


def test_decoded_rows_are_near_their_source(rows):
    codec = fitted(rows)
    codes = codec.encode(rows)
    assert codes.data.shape == (N, M * NBITS // 8) and codes.data.dtype == torch.uint8
    assert codes.decode().shape == rows.shape
    assert squared_error(rows, codes.decode()) / float(rows.square().sum()) < 0.1


@pytest.mark.parametrize("rotation", KINDS)
def test_a_row_is_nearest_to_its_own_code_by_look_up(rows, rotation):
    codec = fitted(rows, rotation)
    codes, query = codec.encode(rows), rows[13]
    lut = table(codec, query, "l2")
    assert lut.shape == (1, M, 1 << NBITS)
    distances = adc_scan(codes.data, lut)[0]
    assert distances.shape == (N,) and int(distances.argmin()) == 13
    values, ids = codes.search(query, N, "l2")
    assert int(ids[0]) == 13
    torch.testing.assert_close(values, distances[ids])
    torch.testing.assert_close(values, (codes.decode() - query).square().sum(1)[ids])


@pytest.mark.parametrize("rotation", KINDS)
def test_a_pickled_codec_is_the_same(rows, rotation):
    codec = fitted(rows, rotation)
    again = pickle.loads(pickle.dumps(codec))
    assert (again.m, again.nbits, again.pad, again.d) == (codec.m, codec.nbits, codec.pad, codec.d)
    assert again.same_as(codec) and torch.equal(again.centroids, codec.centroids)


def test_inner_products_are_sums_of_a_table(rows):
    codec = fitted(rows)
    codes, query = codec.encode(rows), rows[13]
    lut = table(codec, query, "ip")
    labels = unpack_bits(codes.data, M, NBITS).long()
    want = lut[0].gather(1, labels.T).sum(0)
    found = adc_scan(codes.data, lut)[0]
    torch.testing.assert_close(found, want)
    values, ids = codes.search(query, N, "ip")
    torch.testing.assert_close(values, found[ids])
    assert abs(float((rows @ query - found).mean())) < 1e-3


def test_opq_has_the_settings_of_its_product_quantizer():
    codec = ProductQuantizer(M, 8, rotation="opq")
    assert (codec.m, codec.nbits) == (M, 8)
    assert isinstance(codec.rotation, Rotation) and codec.rotation.kind == "opq" and codec.rotation.m is None


def test_opq_rotates_without_changing_lengths(rows):
    rotation = fitted(rows, "opq").rotation
    assert isinstance(rotation, Rotation) and rotation.matrix.shape == (D, D)
    assert rotation.apply(rows[:1]).shape == (1, D) and rotation.apply(rows[:3]).shape == (3, D)
    matrix = rotation.matrix.double()
    assert float((matrix.T - torch.linalg.inv(matrix)).norm()) < 1e-4
    torch.testing.assert_close(rotation.reverse_transform(rotation.apply(rows)), rows)


def test_opq_from_eigenvectors_is_better_than_no_rotation_and_than_a_drawn_one(rows):
    uneven = rows @ (uniform(D, D, 5) - 0.5) * torch.linspace(2, 0.2, D)  # nanopq's case draws even rows
    error = decoded_error(fitted(uneven, Rotation("opq", n_iter=1), 2, 5), uneven)
    assert error < decoded_error(fitted(uneven, "random", 2, 5), uneven)
    assert error < decoded_error(fitted(uneven, None, 2, 5), uneven)


@pytest.fixture(scope="module")
def many() -> tuple[Tensor, Tensor, Tensor]:
    """Rows to train on, to search in and to search for."""
    return uniform(2000, 32, 1), uniform(4000, 32, 2), uniform(50, 32, 3)


def same_neighbours(codes: gpuzip.Codes, index: Any, queries: Tensor, k: int) -> bool:
    """Whether both find the same ids, but for rows of the same distance to 1e-4."""
    values, ids = codes.search(queries, k, "l2")
    theirs, their_ids = map(torch.from_numpy, index.search(queries.numpy(), k))
    torch.testing.assert_close(values, theirs, rtol=1e-4, atol=1e-4)
    return float((ids == their_ids).double().mean()) > 0.99


def test_a_product_quantizer_in_FAISS_has_the_same_codes_and_neighbours(many):
    train, base, queries = many
    codec = fitted(train, m=4, nbits=8)
    codes = codec.encode(base)
    assert np.array_equal(gpuzip.to_faiss(codec).compute_codes(base.numpy()), codes.data.numpy())
    index = gpuzip.to_faiss(codes)
    assert index.ntotal == len(base) and same_neighbours(codes, index, queries, 10)


def test_codes_of_opq_in_FAISS_have_the_same_neighbours(many):
    train, base, queries = many
    codec = fitted(train, "opq", 4, 8)
    with pytest.raises(GpuzipError):
        gpuzip.to_faiss(codec)  # alone it has no place for the rotation; nanopq refuses it, too
    codes = codec.encode(base)
    assert same_neighbours(codes, gpuzip.to_faiss(codes), queries, 10)


def test_an_index_of_FAISS_gives_its_codes_and_neighbours(many):
    train, base, queries = many
    index = faiss.IndexPQ(32, 4, 8)
    index.train(train.numpy())
    index.add(base.numpy())
    codes = gpuzip.from_faiss(index)
    assert isinstance(codes.codec, ProductQuantizer) and codes.codec.centroids.shape == (4, 256, 8)
    assert torch.equal(codes.codec.encode(base).data, codes.data)
    assert same_neighbours(codes, index, queries, 100)


def test_an_index_of_FAISS_with_OPQ_gives_its_codes_and_neighbours(many):
    train, base, queries = many
    matrix = faiss.OPQMatrix(32, 4)
    matrix.niter = 5
    index = faiss.IndexPreTransform(matrix, faiss.IndexPQ(32, 4, 8))
    index.train(train.numpy())
    index.add(base.numpy())
    codes = gpuzip.from_faiss(index)
    assert isinstance(codes.codec, ProductQuantizer) and codes.codec.centroids.shape == (4, 256, 8)
    assert codes.codec.rotation is not None
    assert float((codes.codec.encode(base).data == codes.data).double().mean()) > 0.999
    assert same_neighbours(codes, index, queries, 10)


def test_the_error_is_that_of_FAISS(many):
    train, base, _ = many
    pq = faiss.ProductQuantizer(32, 4, 8)
    pq.train(train.numpy())
    theirs = squared_error(base, torch.from_numpy(pq.decode(pq.compute_codes(base.numpy()))))
    ours = decoded_error(fitted(train, m=4, nbits=8), base)
    assert abs(ours - theirs) / theirs < 0.01
