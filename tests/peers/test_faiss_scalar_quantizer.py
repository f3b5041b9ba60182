"""FAISS's laws of scalar quantization, restated on ScalarQuantizer, HalfQuantizer and Codes.search.

Peer: facebookresearch/faiss, commit 02dbb4e (2026-08-08); MIT. Cases that apply: 13 of 34 of
test_scalar_quantizer_correctness.py, 2 of the 4 of TestScalarQuantizer in test_build_blocks.py, 3 of
test_index_accuracy.py (flavors and bytes), 3 of test_refine.py. Those that do not: TurboQuant (SQtqmse and
SQtq, 21), inverted lists, and the wrapper MinMax (test_rowwise_minmax.py), which gives every row a range of
its own. gpuzip has none of these.

By design a step's number is decoded to its middle, of 2**bits steps by default; with steps=2**bits - 1 codes
are FAISS's. FAISS's QT_8bit_direct is a range whose steps have whole numbers in the middle.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip import Codes, HalfQuantizer, ScalarQuantizer, from_spec
from gpuzip.ops import use_loops
from tests.lazy import Lazy
from tests.peers.draws import Split, hits, nearest, synthetic

pytestmark = pytest.mark.full

faiss = Lazy("faiss")

CODECS = [
    (ScalarQuantizer(4), 0.1),
    (HalfQuantizer(), 0.001),
    (ScalarQuantizer(8, per="tensor"), 0.01),
    (ScalarQuantizer(4, per="tensor"), 0.1),
]


@pytest.fixture(scope="module")
def rows() -> Tensor:
    return synthetic(32, 0, 1000, 0, seed=42).base


@pytest.fixture(scope="module")
def split() -> Split:
    return synthetic(32, 0, 10_000, 100, seed=42)


def scores(queries: Tensor, rows: Tensor, metric: str) -> Tensor:
    """Compute the distances between (Q, d) queries and their (Q, k, d) rows."""
    queries = queries[:, None]
    return (rows * queries).sum(2) if metric == "ip" else (rows - queries).square().sum(2)


@pytest.mark.parametrize(("codec", "most"), CODECS, ids=[codec.spec for codec, _ in CODECS])
def test_values_are_off_by_little(rows, codec, most):
    decoded = codec.fit(rows).encode(rows).decode()
    assert decoded.shape == rows.shape and float((decoded - rows).abs().max()) < most


@pytest.mark.parametrize(
    "spec", ["SQ8", "SQ4", "SQ6", "SQ8(per=tensor)", "SQ4(per=tensor)", "SQfp16", "SQbf16"]
)
def test_codes_are_the_same_with_and_without_compiled_loops(rows, spec):
    codec = from_spec(spec).fit(rows)
    with use_loops(False):
        plain = codec.encode(rows).data
    assert torch.equal(codec.encode(rows).data, plain)


@pytest.mark.parametrize(("spec", "least"), [("SQ4", 0.5), ("SQfp16", 0.99)])
def test_the_nearest_row_is_first(split, spec, least):
    codes = from_spec(spec).fit(split.base).encode(split.base)
    _, ids = codes.search(split.queries, 1, "l2")
    assert hits(ids, nearest(split.base, split.queries, 1)) > least


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("spec", ["SQ8", "SQ6", "SQ4", "PCA20,SQ8"])
def test_scores_are_those_of_decoded_rows(spec, metric):
    split = synthetic(32, 1000, 200, 20)
    codes = from_spec(spec).fit(split.train).encode(split.base)
    values, ids = codes.search(split.queries, 10, metric)
    want = scores(split.queries, codes.decode()[ids], metric)
    torch.testing.assert_close(values, want, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_rows_are_decoded_to_themselves(value):
    rows = torch.full((100, 32), value)
    codes = ScalarQuantizer(8).fit(rows).encode(rows)
    values, _ = codes.search(rows[:1], 10, "l2")
    assert float(values.abs().max()) == 0 and torch.equal(codes.decode(), rows)


@pytest.mark.parametrize("d", [1, 7, 9, 15, 17, 31, 33, 63, 65, 1024])
def test_any_number_of_columns_is_searched(d):
    split = synthetic(d, 0, 100, 10, seed=42)
    codes = ScalarQuantizer(8).fit(split.base).encode(split.base)
    values, ids = codes.search(split.queries, 10, "l2")
    assert values.shape == ids.shape == (10, 10) and all(len(set(row)) == 10 for row in ids.tolist())
    torch.testing.assert_close(values, scores(split.queries, codes.decode()[ids], "l2"), rtol=1e-4, atol=1e-4)


def test_products_of_rows_of_length_one_are_at_most_one():
    unit, queries = map(torch.nn.functional.normalize, synthetic(32, 0, 1000, 10, seed=42)[1:])
    values, _ = ScalarQuantizer(8).fit(unit).encode(unit).search(queries, 10, "ip")
    assert float(values[:, 0].max()) <= 1.1 and float(values[:, 0].min()) >= 0.5


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("d", [13, 16, 24, 32, 64, 128])
def test_bytes_that_are_the_values_score_exactly(d, signed, metric):
    """QT_8bit_direct and QT_8bit_direct_signed: scores and order are those of the whole numbers."""
    offset = 128 if signed else 0
    draw = np.random.default_rng(d)
    base, queries = (
        torch.from_numpy(draw.integers(0, 256, (n, d)).astype(np.float32)) - offset for n in (1000, 30)
    )
    codec = ScalarQuantizer(8, (-0.5 - offset, 255.5 - offset), "tensor", signed=signed).fit(base)
    codes = codec.encode(base)
    numbers = codes.data.view(torch.int8) if signed else codes.data
    assert torch.equal(numbers.float(), base) and torch.equal(codes.decode(), base)
    values, ids = codes.search(queries, 10, metric)
    every = (
        queries.double() @ base.double().T if metric == "ip" else torch.cdist(queries.double(), base.double())
    )
    best = (every if metric == "ip" else -every.square()).topk(10).values
    want = best if metric == "ip" else -best
    torch.testing.assert_close(values.double(), want, rtol=1e-6, atol=0)
    torch.testing.assert_close(values, scores(queries, base[ids], metric), rtol=1e-6, atol=0)


@pytest.mark.parametrize("d", [13, 16, 24])
def test_whole_numbers_up_to_255_are_their_own_codes(d):
    """QT_8bit trained on 0 and 255 has the codes of QT_8bit_direct, and decodes them half a step higher."""
    ends = torch.tensor([[0.0], [255.0]]).expand(2, d)
    codec = ScalarQuantizer(8, steps=255).fit(ends)
    x = torch.from_numpy(np.random.default_rng(123).integers(0, 256, (60, d)).astype(np.float32))
    x[0, 0], x[1, 0], x[0, 1], x[1, 1] = 0, 255, 255, 0
    codes = codec.encode(x)
    assert torch.equal(codes.data.float(), x) and torch.equal(codes.decode(), x + 0.5)
    index = faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_8bit)
    index.train(ends.numpy())
    index.add(x.numpy())
    theirs = gpuzip.from_faiss(index)
    assert isinstance(theirs, Codes) and torch.equal(theirs.data, codes.data)


@pytest.mark.parametrize("d", [3, 6, 8, 16, 36])
def test_whole_numbers_up_to_63_are_their_own_codes_of_6_bits(d):
    codec = ScalarQuantizer(6, (0.0, 63.0), steps=63).fit(torch.zeros(1, d))
    draw = np.random.default_rng(123)
    x = torch.from_numpy(draw.integers(0, 64, (100, d)).astype(np.float32))
    codes = codec.encode(x)
    assert codes.data.shape == (100, -(-6 * d // 8)) and torch.equal(codes.decode(), x + 0.5)
    queries = 63 * torch.from_numpy(draw.random((20, d), dtype=np.float32))
    values, ids = codes.search(queries, 10, "l2")
    torch.testing.assert_close(values, scores(queries, codes.decode()[ids], "l2"), rtol=1e-5, atol=0)
    index = gpuzip.to_faiss(codes)
    torch.testing.assert_close(
        torch.from_numpy(index.search(queries.numpy(), 10)[0]), values, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("spec", ["SQ8", "SQ6", "SQ4", "SQ8(per=tensor)", "SQ4(per=tensor)", "SQfp16"])
def test_every_flavor_finds_most_neighbours_and_two_columns_of_zeros_change_nothing(spec, metric):
    """FAISS counts 972 to 987 of 2,000 with 4 of 64 lists; here every row is scored."""
    split = synthetic(32, 2000, 1000, 200)
    ids = []
    for wider in (0, 2):
        train, base, queries = (torch.nn.functional.pad(x, (0, wider)) for x in split)
        codec = from_spec(spec)
        if "tensor" in spec:  # the zeros must not widen the range of all columns
            assert isinstance(codec, ScalarQuantizer)
            codec = ScalarQuantizer(
                codec.bits, (float(split.train.min()), float(split.train.max())), "tensor"
            )
        ids.append(codec.fit(train).encode(base).search(queries, 10, metric)[1])
    assert hits(ids[0], nearest(split.base, split.queries, 10, metric)) > (0.8 if "SQ4" in spec else 0.9)
    assert float((ids[0] == ids[1]).double().mean()) > 0.999
