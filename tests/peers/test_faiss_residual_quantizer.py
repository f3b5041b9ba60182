"""FAISS's laws of residual and product residual quantization, restated on ResidualQuantizer.

Peer: facebookresearch/faiss, commit 02dbb4e (2026-08-08); MIT. Cases that apply: 22 of the 44 of
test_residual_quantizer.py, 2 of test_refine.py. Those that do not: inverted lists and RQ as their coarse
quantizer (18), numbers of bits that differ per stage (1), norms that are quantized beside the codes (1), an
index that assigns (1) and symmetric distances (1). test_local_search_quantizer.py is of codes that gpuzip
does not have.

By design codes have no norm: distances come from products of codewords, and are exact. Training draws other
rows than FAISS's, so errors are compared with each other, not with FAISS's own values.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

import gpuzip
from gpuzip import Codes, GpuzipError, ProductQuantizer, ResidualQuantizer, from_spec
from gpuzip.ops import unpack_bits, use_loops
from tests.peers.draws import Split, decoded_error, hits, nearest, squared_error, synthetic

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def split() -> Split:
    return synthetic(32, 3000, 1000, 100)


@pytest.fixture(scope="module")
def small() -> Split:
    return synthetic(32, 1000, 1000, 100)


@pytest.fixture(scope="module")
def fitted(split) -> ResidualQuantizer:
    return ResidualQuantizer(4, 6).fit(split.train)


def fit(spec: str, x: Tensor) -> ResidualQuantizer:
    codec = from_spec(spec)
    assert isinstance(codec, ResidualQuantizer)
    return codec.fit(x, min_points_per_centroid=1)


def of_codebooks(codebooks: Tensor, beam: int) -> ResidualQuantizer:
    """A codec of given codebooks, (m, K, d)."""
    m, K, d = codebooks.shape
    config = {"m": m, "nbits": K.bit_length() - 1, "nsplits": 1, "beam": beam, "d": d, "seed": None}
    return ResidualQuantizer.restore(config, {"codebooks": codebooks[None]})


def labels_of(codes: Codes) -> Tensor:
    codec = codes.codec
    assert isinstance(codec, ResidualQuantizer)
    return unpack_bits(codes.data, codec.nsplits * codec.m, codec.nbits).long()


def beam_searched(codebooks: Tensor, x: Tensor, beam: int) -> Tensor:
    """(N, m): the labels that following `beam` partial codes finds, by what is left over of the rows."""
    left, labels = x.double()[:, None], torch.zeros((len(x), 1, 0), dtype=torch.int64)
    for stage in codebooks.double():
        K = len(stage)
        after = left[:, :, None] - stage
        order = after.square().sum(3).flatten(1).argsort(dim=1, stable=True)[:, :beam]
        parents, label = order // K, order % K
        rows = torch.arange(len(x))[:, None]
        labels = torch.cat([labels[rows, parents], label[:, :, None]], 2)
        left = after[rows, parents, label]
    return labels[:, 0]


@pytest.mark.parametrize("beam", [1, 2, 7, 10])
def test_codes_are_those_of_a_beam_search_over_what_is_left_over(fitted, split, beam):
    codebooks = fitted.codebooks[0]
    found = labels_of(of_codebooks(codebooks, beam).encode(split.base))
    want = beam_searched(codebooks, split.base, beam)
    assert float((found == want).all(1).double().mean()) > 0.998  # but for ties


def test_the_error_is_near_that_of_a_product_quantizer(fitted, split):
    product = ProductQuantizer(4, 6).fit(split.train)
    assert decoded_error(fitted, split.base) < 1.2 * decoded_error(product, split.base)


def test_a_wider_beam_loses_less(split):
    errors = [decoded_error(ResidualQuantizer(4, 6, beam=b).fit(split.train), split.base) for b in (10, 2)]
    assert errors[0] < errors[1]


def test_codebooks_do_not_depend_on_threads(split, fitted):
    """FAISS's test limits memory; blocks are made of rows here, whose codes do not depend on one another."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        again = ResidualQuantizer(4, 6).fit(split.train)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(again.codebooks, fitted.codebooks)
    pieces = gpuzip.cat([fitted.encode(part) for part in split.base.split(77)])
    assert torch.equal(pieces.data, fitted.encode(split.base).data)


def test_codes_are_the_same_with_and_without_compiled_loops(fitted, split):
    with use_loops(False):
        plain = fitted.encode(split.base).data
    assert torch.equal(fitted.encode(split.base).data, plain)


def test_stages_can_be_cut_off_at_either_end():
    """With a beam of 1 the first stages alone give the first labels, and the others those of what is left."""
    split = synthetic(32, 1000, 100, 0)
    codebooks = ResidualQuantizer(5, 4).fit(split.train).codebooks[0]
    whole, first, last = (of_codebooks(part, 1) for part in (codebooks, codebooks[:2], codebooks[2:]))
    labels = labels_of(whole.encode(split.base))
    begun = first.encode(split.base)
    assert torch.equal(labels_of(begun), labels[:, :2])
    assert torch.equal(labels_of(last.encode(split.base - begun.decode())), labels[:, 2:])


@pytest.mark.parametrize("spec", ["RQ3x4", "PRQ4x3x5", "PRQ1x3x5"])
def test_a_file_has_the_same_codes_and_neighbours(small, spec, tmp_path):
    codes = fit(spec, small.train).encode(small.base)
    codes.save(tmp_path / "x.ezip")
    again = gpuzip.open(tmp_path / "x.ezip")
    assert torch.equal(again.codec.encode(small.base).data, codes.data)
    for one, other in zip(codes.search(small.queries), again.search(small.queries), strict=True):
        assert torch.equal(one, other)


def test_neighbours_are_found(small):
    codes = fit("RQ3x4", small.train).encode(small.base)
    _, ids = codes.search(small.queries, 10, "l2")
    assert hits(ids, nearest(small.base, small.queries, 1)) > 0.35


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("spec", ["RQ3x4", "RQ3x6", "PRQ4x3x5"])
def test_scores_are_those_of_decoded_rows(small, spec, metric):
    """FAISS's search with exact norms, or by look-up, against its search that decodes."""
    codes = fit(spec, small.train).encode(small.base)
    values, ids = codes.search(small.queries, 10, metric)
    rows, queries = codes.decode().double(), small.queries.double()
    every = queries @ rows.T if metric == "ip" else -torch.cdist(queries, rows).square()
    sign = 1 if metric == "ip" else -1
    for want in (every.topk(10).values, every.gather(1, ids)):
        torch.testing.assert_close(sign * values.double(), want, rtol=1e-5, atol=1e-4)
    assert all(len(set(row)) == 10 for row in ids.tolist())


@pytest.mark.parametrize(("rounds", "better"), [(2, 1.04), (5, 1.06)])
def test_codebooks_that_are_refined_together_lose_less(small, rounds, better):
    """FAISS makes 5 rounds and asks for 6 %; the default here is 2 rounds."""
    plain, refined = (
        decoded_error(ResidualQuantizer(3, 4).fit(small.train, refine=times), small.train)
        for times in (0, rounds)
    )
    assert plain > better * refined


def test_a_code_of_decoded_rows_decodes_to_them_again():
    split = synthetic(96, 2000, 1000, 0)
    codec = ResidualQuantizer(6, 8).fit(split.train, n_iter=4, refine=1, min_points_per_centroid=1)
    codes = codec.encode(split.base)
    decoded = codes.decode()
    again = codec.encode(decoded)
    assert int((again.data != codes.data).any(1).sum()) < 10
    off = (again.decode() - decoded).abs().sum(1).sort().values
    assert float(off[-10]) < 1e-5 * float(decoded.abs().sum(1).mean())


def test_splits_of_their_own_stages_lose_less_than_a_product_quantizer():
    split = synthetic(64, 3000, 3000, 0)
    residual, product = ResidualQuantizer(2, 4, 2).fit(split.train), ProductQuantizer(4, 4).fit(split.train)
    assert residual.code_size == product.code_size
    assert decoded_error(residual, split.base) < decoded_error(product, split.base)


def test_one_split_is_a_residual_quantizer(split):
    one, plain = (fit(spec, split.train) for spec in ("PRQ1x4x4", "RQ4x4"))
    assert one.same_as(plain)
    assert squared_error(one.encode(split.base).decode(), plain.encode(split.base).decode()) == 0


def test_splits_find_about_as_much_as_one(small):
    found = []
    for spec in ("PRQ4x3x5", "RQ12x5"):
        codes = fit(spec, small.train).encode(small.base)
        found.append(hits(codes.search(small.queries, 10, "l2")[1], nearest(small.base, small.queries, 10)))
    assert found[0] * 1.1 >= found[1]


def test_a_spec_names_splits_stages_and_bits():
    codec = from_spec("PRQ2x4x8")
    assert isinstance(codec, ResidualQuantizer)
    assert (codec.nsplits, codec.m, codec.nbits) == (2, 4, 8)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((300, 64), dtype=np.float32))
    assert (
        codec.fit(x, n_iter=1, refine=0, min_points_per_centroid=1).code_size == 8
    )  # FAISS's norm adds a byte


@pytest.mark.parametrize("spec", ["RQ2x16_3x8_6x4", "RQ8x8_Nqint8"])
def test_stages_of_different_bits_and_norms_in_codes_are_refused(spec):
    with pytest.raises(GpuzipError, match=spec):
        from_spec(spec)
