"""FAISS's laws of RaBitQ, restated on RaBitQuantizer.

Peer: facebookresearch/faiss, commit 02dbb4e (2026-08-08); MIT. Cases of test_rabitq.py that apply: 20 of 31.
The others: inverted lists (10), and levels of quantized queries (1), of which gpuzip has none: its queries
stay floats, FAISS's qb=0. test_rabitq_utils.py and test_rabitq_fastscan.py test FAISS's insides.

By design bits are 1 to 8, where FAISS has 9, too. A row has 6 bytes of factors, or 10 with several bits,
where FAISS has 8 or 20. Rows are rotated unless rotation=None. The mean is that of the rows, so the law of
rows of A and -A has rows whose mean is 0.
"""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip import GpuzipError, ProductQuantizer, RaBitQuantizer, Rotation, from_spec
from gpuzip.ops import use_loops
from tests.peers.draws import Split, hits, nearest, squared_error, synthetic

pytestmark = pytest.mark.full

METRICS = ["l2", "ip"]
BITS = [1, 2, 4, 8]


@pytest.fixture(scope="module")
def split() -> Split:
    return synthetic(128, 500, 1000, 50)


@pytest.fixture(scope="module")
def wide() -> Split:
    return synthetic(512, 1000, 2000, 50)


def unit(n: int, seed: int) -> Tensor:
    rows = torch.randn(n, 128, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("rotation", [None, "random"])
def test_one_bit_finds_about_as_much_as_a_product_quantizer_of_as_many_bits(wide, rotation, metric):
    product = ProductQuantizer(wide.base.shape[1] // 4, 4, rotation=rotation)
    losses = []
    for codec in (product, RaBitQuantizer(1, rotation=rotation)):
        _, ids = codec.fit(wide.train).encode(wide.base).search(wide.queries, 10, metric)
        losses.append(1 - hits(ids, nearest(wide.base, wide.queries, 10, metric)))
    assert losses[0] < 0.4 and losses[1] < losses[0] * 2.1 ** (1 / 8)


def estimates(x: Tensor, queries: Tensor, center: Tensor) -> Tensor:
    """(Q, N) squared distances by the paper's estimator, in float64, of one bit and float queries."""
    rows, asked = ((part.double() - center) for part in (x, queries))
    norms, signs = rows.norm(dim=1), torch.where(rows > 0, 1.0, -1.0).double() / x.shape[1] ** 0.5
    along = (rows / norms[:, None] * signs).sum(1)  # the cosine of a row and its code
    products = asked @ signs.T / along * norms
    found: Tensor = norms.square() + asked.square().sum(1, keepdim=True) - 2 * products
    return found


def of_center(center: Tensor, bits: int = 1) -> RaBitQuantizer:
    return RaBitQuantizer.restore({"bits": bits, "d": len(center)}, {"center": center})


def all_scores(codec: RaBitQuantizer, x: Tensor, queries: Tensor) -> Tensor:
    """(Q, N) squared distances, in the order of the rows."""
    values, ids = codec.encode(x).search(queries, len(x), "l2")
    return torch.empty_like(values).scatter_(1, ids, values).double()


@pytest.mark.parametrize("rotated", [False, True])
def test_distances_are_those_of_the_papers_estimator(wide, rotated):
    x, queries = wide.base - wide.train.mean(0), wide.queries - wide.train.mean(0)
    if rotated:
        turn = Rotation("random").fit(x)
        x, queries = turn.apply(x), turn.apply(queries)
    zero = torch.zeros(x.shape[1])
    found, want = all_scores(of_center(zero), x, queries), estimates(x, queries, zero)
    assert float((found - want).abs().max()) < 2e-3 * float(want.mean())  # the factors are halves
    assert float(np.corrcoef(found[0], want[0])[0, 1]) > 0.9999


def test_distances_from_a_mean_are_nearer_than_the_papers(wide):
    """By design the part of a query along the mean is not estimated, but known."""
    center = wide.train.mean(0)
    truth = torch.cdist(wide.queries.double(), wide.base.double()).square()
    found = all_scores(of_center(center), wide.base, wide.queries)
    paper = estimates(wide.base, wide.queries, center)
    assert squared_error(found, truth) < squared_error(paper, truth)


@pytest.mark.parametrize("bits", BITS)
def test_a_row_finds_itself_at_no_negative_distance(bits):
    x = torch.from_numpy(np.random.default_rng(10_996).standard_normal((200, 64), dtype=np.float32))
    values, ids = RaBitQuantizer(bits).fit(x).encode(x).search(x[:5], 5, "l2")
    assert float(values.min()) >= 0
    assert bool((ids == torch.arange(5)[:, None]).any(1).all())


@pytest.mark.parametrize("d", [13, 16, 64])
def test_rows_of_one_magnitude_are_kept(d):
    signs = torch.from_numpy(2.0 * np.random.default_rng(123).integers(0, 2, (10, d)) - 1).float()
    x = 100 * torch.cat([signs, -signs])
    codec = RaBitQuantizer(1, rotation=None).fit(x)
    assert torch.equal(codec.encode(x).decode(), x)


@pytest.mark.parametrize("bits", BITS)
def test_codes_are_the_same_with_and_without_compiled_loops(split, bits):
    codec = RaBitQuantizer(bits).fit(split.train)
    with use_loops(False):
        plain = codec.encode(split.base).data[:]
    assert torch.equal(codec.encode(split.base).data[:], plain)


@pytest.mark.parametrize("bits", range(1, 9))
def test_a_row_takes_its_bits_and_a_few_factors(split, bits):
    codec = RaBitQuantizer(bits).fit(split.train)
    assert codec.code_size == 128 * bits // 8 + (6 if bits == 1 else 10)
    theirs = 128 // 8 + 8 if bits == 1 else 128 // 8 + 12 + 128 * (bits - 1) // 8 + 8
    assert codec.code_size < theirs


@pytest.mark.parametrize("bits", [0, 9, 10])
def test_other_bits_are_refused(bits):
    with pytest.raises(GpuzipError, match="bits"):
        RaBitQuantizer(bits)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", BITS)
def test_a_search_gives_k_finite_scores_of_different_rows(split, bits, metric):
    values, ids = RaBitQuantizer(bits).fit(split.train).encode(split.base).search(split.queries, 10, metric)
    assert values.shape == ids.shape == (50, 10) and bool(values.isfinite().all())
    assert all(len(set(row) & set(range(1000))) == 10 for row in ids.tolist())


@pytest.mark.parametrize("metric", METRICS)
def test_more_bits_find_more(split, metric):
    want = nearest(split.base, split.queries, 10, metric)
    shares = []
    for bits in BITS:
        _, ids = RaBitQuantizer(bits).fit(split.train).encode(split.base).search(split.queries, 10, metric)
        shares.append(hits(ids, want))
    assert min(shares) > 0.1 and shares[-1] > 0.75
    assert all(more >= fewer - 0.03 for fewer, more in itertools.pairwise(shares))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spec", ["RaBitQ", "RaBitQ2", "RR,RaBitQ4", "RaBitQ8", "RaBitQ4(rotation=None)"])
def test_a_file_finds_the_same(split, spec, metric, tmp_path):
    codes = from_spec(spec).fit(split.train).encode(split.base)
    first = codes.search(split.queries, 5, metric)
    for name in ("once.ezip", "twice.ezip"):
        codes.save(tmp_path / name)
        codes = gpuzip.open(tmp_path / name)
        assert codes.shape == split.base.shape
        for one, other in zip(first, codes.search(split.queries, 5, metric), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(("spec", "bits"), [("RaBitQ", 1), ("RaBitQ2", 2), ("RaBitQ4", 4), ("RaBitQ8", 8)])
def test_a_spec_names_the_bits(split, spec, bits):
    codec = from_spec(spec)
    assert isinstance(codec, RaBitQuantizer) and codec.bits == bits
    values, ids = codec.fit(split.train).encode(split.base).search(split.queries, 5)
    assert values.shape == ids.shape == (50, 5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_a_row_that_is_the_mean_scores_exactly(bits, metric):
    """FAISS allows 0.15; a row without a direction has no error here."""
    mean, query = unit(1, 42), unit(1, 43)
    values, ids = of_center(mean[0], bits).encode(mean).search(query, 1, metric)
    want = (query * mean).sum() if metric == "ip" else (query - mean).square().sum()
    assert int(ids) == 0
    torch.testing.assert_close(values[0, 0], want, rtol=1e-5, atol=1e-5)
