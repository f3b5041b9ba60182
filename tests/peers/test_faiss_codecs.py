"""FAISS's laws of codecs in general: encoding twice, accuracy, bit strings, bits, rotations, clustering.

Peer: facebookresearch/faiss, commit 02dbb4e (2026-08-08); MIT. Cases that apply: 14 of
test_standalone_codec.py, 8 of test_build_blocks.py (rotations), 6 of test_clustering.py, 5 of
test_index_binary.py and test_hamming_utils.py, 2 of test_index_accuracy.py (LSH). Those of these files that
do not: inverted lists, lattices, TurboQuant, id maps, spectral hashing, range searches and counts below a
threshold, weighted and progressive clustering, and linear maps that are not orthonormal.

By design a Hadamard rotation adds no columns, where FAISS fills up to a power of two; an empty index finds
nothing, where FAISS gives ids of -1; and "LSHrt" is written "RR,LSHt".
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from gpuzip import BinaryQuantizer, Codes, HalfQuantizer, Rotation, from_spec
from gpuzip.codecs import Codec
from gpuzip.ops import pack_bits, unpack_bits
from gpuzip.training.kmeans import kmeans
from tests.peers.draws import Split, decoded_error, hits, nearest, squared_error, synthetic, uniform

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def split() -> Split:
    return synthetic(96, 2000, 1000, 0)


@pytest.fixture(scope="module")
def fitted(split):
    """Codecs by spec, fitted on the rows to train on, once each."""
    found: dict[str, Codec] = {}

    def fit(spec: str) -> Codec:
        if spec not in found:
            codec = from_spec(spec)
            found[spec] = codec.fit_quietly(split.train)
        return found[spec]

    return fit


@pytest.mark.parametrize(
    "spec", ["SQ8", "PCA32,SQ8", "PQ6x8", "PQ6x6", "RR,LSHt", "SQ4", "SQfp16", "LloydMax2"]
)
def test_decoded_rows_have_the_same_codes(fitted, split, spec):
    codec = fitted(spec)
    codes = codec.encode(split.base)
    again = codec.encode(codes.decode())
    differ = int((again.data != codes.data).any(1).sum())
    assert differ <= (10 if "," in spec else 0)  # a rotation rounds
    torch.testing.assert_close(again.decode(), codes.decode(), rtol=0, atol=0.02 if differ else 1e-6)


@pytest.mark.parametrize(
    ("coarse", "fine"),
    [
        ("SQ4", "SQ8"),
        ("SQ6", "SQ8"),
        ("SQ8", "SQfp16"),
        ("SQ8", "SQbf16"),
        ("PQ6x8", "PQ8x8"),
        ("PQ8x6", "PQ8x8"),
    ],
)
def test_more_bits_lose_less(fitted, split, coarse, fine):
    assert decoded_error(fitted(coarse), split.base) > decoded_error(fitted(fine), split.base)


@pytest.mark.parametrize("nbits", range(1, 17))
def test_codes_follow_one_another_as_bits_of_one_number(nbits):
    labels = np.random.default_rng(1234).integers(0, 1 << nbits, (20, 10))
    codes = torch.from_numpy(labels).to(torch.uint8 if nbits <= 8 else torch.int32)
    packed = pack_bits(codes, nbits)
    numbers = [sum(label << (nbits * i) for i, label in enumerate(row)) for row in labels.tolist()]
    width = -(-10 * nbits // 8)
    assert packed.tolist() == [list(number.to_bytes(width, "little")) for number in numbers]
    assert torch.equal(unpack_bits(packed, 10, nbits), codes)


def bits(n: int, d: int, seed: int) -> tuple[BinaryQuantizer, Codes, Tensor]:
    """A codec of d signs, codes of n rows, and these rows."""
    rows = (
        2.0 * torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (n, d), dtype=np.int64)).float() - 1
    )
    codec = BinaryQuantizer(levels="sign").fit(rows)
    return codec, codec.encode(rows), rows


@pytest.mark.parametrize("d", [32, 64, 128, 192, 256, 320, 512])
def test_hamming_distances_are_counts_of_bits_that_differ(d):
    codec, codes, rows = bits(1500, d, 1)
    assert np.array_equal(codes.data.numpy(), np.packbits(rows.numpy() > 0, axis=1))
    _, _, queries = bits(50, d, 2)
    every = (queries[:, None] != rows).sum(2)
    for asked in (queries, codec.encode(queries).data):
        values, ids = codes.search(asked, 8, "hamming")
        assert torch.equal(values, every.gather(1, ids).int())
        assert torch.equal(values, every.topk(8, largest=False).values.int())
        assert all(len(set(row)) == 8 for row in ids.tolist())
    assert torch.equal(codes[12].decode()[0], rows[12])


def test_an_empty_store_of_bits_finds_nothing():
    codec, codes, rows = bits(4, 32, 1)
    values, ids = codes[:0].search(rows, 10, "hamming")
    assert values.shape == ids.shape == (4, 0) and codec.encode(rows[:0]).data.shape == (0, 4)


def test_bits_find_some_neighbours(split):
    base, queries = uniform(5000, 64) - 0.5, uniform(200, 64, 7) - 0.5
    unit, asked = map(torch.nn.functional.normalize, (base, queries))
    _, ids = from_spec("LSH").fit(unit).encode(unit).search(asked, 10, "hamming")
    assert hits(ids, nearest(unit, asked, 1)) > 0.2


@pytest.mark.parametrize("d", [64, 128, 192, 384, 768])
def test_a_hadamard_rotation_keeps_lengths_and_columns(d):
    x = torch.randn(20, d, generator=torch.Generator().manual_seed(42))
    first, again, other = (Rotation("hadamard").fit(x, seed=seed) for seed in (1, 1, 2))
    y = first.apply(x)
    assert y.shape == (20, d) and bool(y.isfinite().all())
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1), rtol=1e-5, atol=0)
    assert torch.equal(y, again.apply(x)) and not torch.allclose(y, other.apply(x))
    torch.testing.assert_close(first.reverse_transform(y), x, rtol=0, atol=1e-5)


def test_a_rotated_store_of_halves_finds_each_row():
    """FAISS's "HR,Flat"; a store that keeps floats is the rows themselves, so halves are here."""
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(202))
    codes = HalfQuantizer(rotation="hadamard").fit(x).encode(x)
    assert codes.search(x[:5], 5, "l2")[1][:, 0].tolist() == [0, 1, 2, 3, 4]


def test_principal_columns_fall_in_variance():
    rows = torch.randn(1000, 64, generator=torch.Generator().manual_seed(1)) * torch.arange(1.0, 65)
    rows = rows @ torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(2))).Q
    turned = Rotation("pca", dims=10).fit(rows).apply(rows)
    squares = turned.square().sum(0)
    assert turned.shape == (1000, 10) and bool((squares.diff() < 0).all())
    back = Rotation("pca", dims=10).fit(rows)
    once = back.reverse_transform(turned)
    assert squared_error(back.apply(once), turned) < 1e-5 * float(turned.square().sum())


def test_more_cells_and_more_iterations_of_clustering_lose_less():
    x, losses = 10 * uniform(1000, 64), []
    few = kmeans(x, 1, 32, n_iter=10, progress=lambda _, __, loss: losses.append(loss))
    assert losses == sorted(losses, reverse=True) and len(set(losses)) == len(losses)
    assert float(few.objective) > float(kmeans(x, 1, 64, n_iter=10).objective)


def test_more_cells_than_points_of_their_own_are_filled():
    points = uniform(5, 2).repeat_interleave(20, 0)
    found = kmeans(points, 1, 10, n_iter=10)
    assert found.centroids.shape == (1, 10, 2) and bool(found.centroids.isfinite().all())
    same = kmeans(torch.zeros(5, 10), 1, 5, n_iter=10)
    assert torch.equal(same.centroids, torch.zeros(1, 5, 10)) or bool(same.centroids.abs().max() < 1e-3)


def test_given_centroids_are_where_clustering_begins():
    x, losses = synthetic(32, 1000, 0, 0).train, []
    first = kmeans(x, 1, 5, n_iter=4, progress=lambda _, __, loss: losses.append(loss))
    kmeans(x, 1, 5, n_iter=4, init=first.centroids, progress=lambda _, __, loss: losses.append(loss))
    assert losses[0] > 1.01 * losses[4]


def test_the_best_of_several_starts_is_kept():
    x = uniform(1000, 64)
    each = [float(kmeans(x, 1, 20, seed=seed).objective) for seed in range(10)]
    assert float(kmeans(x, 1, 20, n_init=10).objective) == min(each) < max(each)


def test_clustering_stops_when_nothing_moves():
    x = uniform(1000, 32, 42)
    assert kmeans(x, 1, 10, n_iter=1000).n_iter < 1000
