"""ResidualQuantizer: sums of codewords against plain loops and FAISS, what a beam and refining gain."""

import itertools
import pickle

import numpy as np
import pytest
import torch

from gpuzip import ResidualQuantizer, from_faiss, from_spec, to_faiss
from gpuzip.errors import FormatError, GpuzipError
from gpuzip.ops import beam_search, pack_bits
from gpuzip.training.residual import Codewords, cross_bytes, cross_products, nearest_sums, sums, trained


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error(x, labels, codebooks):
    return float((x - sums(labels, codebooks)).double().square().sum())


def searched(x, codebooks, beam):
    return nearest_sums(x, Codewords(codebooks), cross_products(codebooks), beam)


def by_loops(row, codebook, beam):
    """Beam search of one row in one split, path by path."""
    paths: list[tuple[int, ...]] = [()]
    for words in codebook:
        longer = [(*path, k) for path in paths for k in range(len(words))]
        left = [row - sum(codebook[m][k] for m, k in enumerate(path)) for path in longer]
        cost = [float(rest.square().sum()) for rest in left]
        paths = [longer[i] for i in sorted(range(len(longer)), key=lambda i: cost[i])[:beam]]
    return list(paths[0])


# --- the search


@pytest.mark.parametrize("beam", [1, 3, 20])
def test_the_search_is_that_of_plain_loops(beam):
    x, codebooks = normal(9, 10).double().float(), normal(2, 3, 4, 5, seed=1)
    want = [
        [k for p in range(2) for k in by_loops(row.view(2, 5)[p].double(), codebooks[p].double(), beam)]
        for row in x
    ]
    assert searched(x, codebooks, beam).tolist() == want


def test_a_beam_of_all_paths_finds_the_nearest_sum():
    x, codebooks = normal(30, 6), normal(1, 3, 4, 6, seed=1)
    every = torch.tensor(list(itertools.product(range(4), repeat=3)))
    nearest = torch.cdist(x.double(), sums(every, codebooks).double()).argmin(1)
    assert torch.equal(searched(x, codebooks, 64).long(), every[nearest])


def test_a_beam_of_one_takes_the_nearest_codeword_of_what_is_left():
    x, codebooks = normal(50, 8), normal(1, 4, 16, 8, seed=1)
    left, want = x.double(), []
    for words in codebooks[0].double():
        want.append(torch.cdist(left, words).argmin(1))
        left = left - words[want[-1]]
    assert torch.equal(searched(x, codebooks, 1).long(), torch.stack(want, 1))


def test_costs_of_equal_paths_leave_the_lowest_codes():
    products, cross = torch.zeros(2, 1, 3, 4), torch.zeros(1, 3, 4, 4)
    assert beam_search(products, cross, 2).tolist() == [[0, 0, 0]] * 2
    products[:, :, 0, 2] = -1
    assert beam_search(products, cross, 3).tolist() == [[2, 0, 0]] * 2


def test_a_wider_beam_is_nearer_on_average(real):
    x = real[:2000]
    codec = ResidualQuantizer(6, nbits=5).fit(x, n_iter=5, refine=0)
    errors = [error(x, searched(x, codec.codebooks, beam), codec.codebooks) for beam in (1, 2, 5, 16)]
    assert errors == sorted(errors, reverse=True)
    assert len(set(errors)) == 4


def test_codes_of_a_row_do_not_depend_on_the_rows_beside_it(real):
    codec = ResidualQuantizer(5, nbits=6, nsplits=2).fit(real[:2600], n_iter=2, refine=1)
    together = codec.encode(real[:3000]).data
    alone = torch.cat([codec.encode(real[i : i + 1]).data for i in range(0, 3000, 100)])
    assert torch.equal(together[::100], alone)
    assert torch.equal(together[1700:2900], codec.encode(real[1700:2900]).data)


def test_splits_are_coded_each_on_its_own(real):
    x = real[:500]
    codebooks = trained(x, 3, 2, 16, beam=4, n_iter=3, refine=1)
    whole = searched(x, codebooks, 4)
    for p in range(3):
        part = searched(x[:, p * 128 : (p + 1) * 128].contiguous(), codebooks[p : p + 1], 4)
        assert torch.equal(whole[:, 2 * p : 2 * p + 2], part)


def test_decoding_adds_codewords_and_puts_splits_side_by_side(real):
    codec = ResidualQuantizer(3, nbits=5, nsplits=2).fit(real[:1300], n_iter=2, refine=0)
    labels = torch.randint(0, 32, (7, 6), generator=torch.Generator().manual_seed(0))
    parts = [
        torch.cat(
            [torch.stack([codec.codebooks[p, m, row[3 * p + m]] for m in range(3)]).sum(0) for p in range(2)]
        )
        for row in labels
    ]
    got = codec.decode_block(pack_bits(labels.to(torch.uint8), 5))
    torch.testing.assert_close(got, torch.stack(parts), rtol=0, atol=1e-6)


# --- what is learned


@pytest.mark.full
def test_refining_codebooks_together_lowers_the_error(real):
    x, errors = real[:3000], []
    for rounds in (0, 2):
        codebooks = trained(x, 1, 6, 32, beam=5, n_iter=5, refine=rounds)
        errors.append(error(x, searched(x, codebooks, 5), codebooks))
    assert errors[1] < 0.98 * errors[0]


@pytest.mark.full
@pytest.mark.parametrize("m", [4, 16])
def test_many_stages_lose_no_more_than_those_of_faiss(real, m):
    faiss = pytest.importorskip("faiss")
    theirs = faiss.ResidualQuantizer(384, m, 6)
    theirs.train(real[:2500].numpy())
    other = real[4000:5000]
    decoded = torch.from_numpy(theirs.decode(theirs.compute_codes(other.numpy())))
    codec = ResidualQuantizer(m, nbits=6).fit(real[:2500])
    ours = (codec.encode(other).decode() - other).square().sum()
    assert ours < 1.01 * (decoded - other).square().sum()


def test_training_on_several_beginnings_fits_other_rows_better(real):
    errors = []
    for beam in (1, 5):
        codebooks = trained(real[:2000], 4, 4, 64, beam=beam, n_iter=5, refine=0)
        errors.append(error(real[2000:4000], searched(real[2000:4000], codebooks, 5), codebooks))
    assert errors[1] < 0.99 * errors[0]


def test_more_stages_are_nearer(real):
    errors = []
    for m in (1, 2, 4, 8):
        codec = ResidualQuantizer(m, nbits=5).fit(real[:1300], n_iter=5, refine=1)
        quality = codec.encode(real[:1300]).quality(real[:1300])
        assert quality is not None
        errors.append(quality.mse)
    assert errors == sorted(errors, reverse=True)


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_threads(real):
    def fitted():
        return ResidualQuantizer(3, nbits=5, nsplits=2).fit(real[:1300], seed=5, n_iter=3, refine=1)

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = fitted()
        torch.set_num_threads(3)
        assert first.same_as(fitted())
        assert torch.equal(first.encode(real[:999]).data, fitted().encode(real[:999]).data)
    finally:
        torch.set_num_threads(threads)
    other = ResidualQuantizer(3, nbits=5, nsplits=2).fit(real[:1300], seed=6, n_iter=3, refine=1)
    assert not first.same_as(other)


def test_codewords_are_stored_in_float16_without_loss(real):
    codec = ResidualQuantizer(2, nbits=4).fit(real[:700])
    assert codec.state()["codebooks"].dtype == torch.float16
    assert codec.nbytes == 2 * 16 * 384 * 2
    assert codec.code_size == 1
    assert ResidualQuantizer(2, nbits=4).fit(real[:700] * 1e-9).state()["codebooks"].dtype == torch.float32


def test_equal_rows_are_coded_exactly():
    x = normal(1, 6).repeat(200, 1)
    codec = ResidualQuantizer(2, nbits=2).fit(x)
    torch.testing.assert_close(codec.encode(x).decode(), x, rtol=1e-3, atol=1e-4)


def test_few_training_rows_warn_and_too_few_are_refused(real):
    with pytest.warns(
        UserWarning,
        match=r"at least 624 rows for 2\*\*4 codewords per stage; got 100",
    ):
        ResidualQuantizer(2, nbits=4).fit(real[:100], n_iter=1, refine=0)
    with pytest.raises(GpuzipError, match=r"x must have at least 16 rows for nbits=4; got 15\. Use nbits<=3"):
        ResidualQuantizer(2, nbits=4).fit(real[:15])


# --- FAISS


@pytest.mark.parametrize("nbits", [4, 8, 6])
def test_faiss_decodes_our_codes_with_our_codebooks(real, nbits):
    faiss = pytest.importorskip("faiss")
    x = real[:40]
    codebooks = normal(1, 3, 1 << nbits, 384) / 30
    codec = ResidualQuantizer(3, nbits).fit(real[: 1 << nbits], n_iter=0, refine=0, min_points_per_centroid=1)
    codec = type(codec).restore(codec.config(), {"codebooks": codebooks})
    theirs = faiss.ResidualQuantizer(384, 3, nbits)
    theirs.is_trained = True
    faiss.copy_array_to_vector(codebooks.numpy().ravel(), theirs.codebooks)
    codes = codec.encode(x)
    assert theirs.code_size == codec.code_size
    torch.testing.assert_close(torch.from_numpy(theirs.decode(codes.data.numpy())), codes.decode())


def test_the_codes_are_near_as_those_of_faiss(real):
    """Theirs and ours search the same codebooks with the same beam."""
    faiss = pytest.importorskip("faiss")
    x = real[:1500]
    theirs = faiss.ResidualQuantizer(384, 4, 5)
    theirs.train_type, theirs.verbose = faiss.ResidualQuantizer.Train_default, False
    theirs.max_beam_size = 5
    theirs.train(x.numpy())
    codebooks = torch.from_numpy(faiss.vector_to_array(theirs.codebooks)).view(1, 4, 32, 384)
    want = torch.from_numpy(theirs.decode(theirs.compute_codes(x.numpy())))
    got = error(x, searched(x, codebooks, 5), codebooks)
    assert got == pytest.approx(float((x - want).double().square().sum()), rel=1e-3)


@pytest.mark.parametrize("nsplits", [1, 4])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_there_and_back_and_the_same_search(real, real_queries, nsplits, metric):
    pytest.importorskip("faiss")
    codec = ResidualQuantizer(3, nbits=5, nsplits=nsplits, beam=7).fit(real[:1300], n_iter=2, refine=1)
    codes = codec.encode(real[:500])
    index = to_faiss(codes, metric)
    values, _ = codes.search(real_queries[:20], 5, metric)
    theirs, _ = index.search(real_queries[:20].numpy(), 5)
    torch.testing.assert_close(torch.from_numpy(theirs), values, rtol=1e-4, atol=1e-5)
    back = from_faiss(index)
    assert torch.equal(back.data, codes.data)
    assert torch.equal(back.decode(), codes.decode())
    assert back.codec.spec == codec.spec
    again = from_faiss(to_faiss(codec))
    assert torch.equal(again.encode(real[:500]).data, codes.data)


def test_residual_codes_that_are_not_ours_are_refused(real):
    faiss = pytest.importorskip("faiss")
    uneven = faiss.ResidualQuantizer(8, faiss.UInt64Vector())
    faiss.copy_array_to_vector(np.array([4, 5], np.uint64), uneven.nbits)
    uneven.M, uneven.is_trained = 2, True
    with pytest.raises(
        GpuzipError,
        match=r"from_faiss: the ResidualQuantizer must have one nbits and one M; got nbits \[4, 5\]",
    ):
        from_faiss(uneven)
    normed = faiss.IndexResidualQuantizer(8, 2, 4, faiss.METRIC_L2, faiss.AdditiveQuantizer.ST_norm_qint8)
    normed.train(real[:700, :8].contiguous().numpy())
    with pytest.raises(GpuzipError, match=r"must not store norms beside its codes\. Use"):
        from_faiss(normed)


# --- words and errors


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("RQ24x8", ResidualQuantizer(24)),
        ("PRQ4x12x8", ResidualQuantizer(12, nsplits=4)),
        ("PCA,RQ6x4(beam=16)", ResidualQuantizer(6, 4, beam=16, rotation="pca")),
    ],
)
def test_specs_are_those_of_faiss(text, codec):
    assert repr(from_spec(text)) == repr(codec)
    assert codec.spec == text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"m": 0}, r"m must be a whole number of at least 1.*; got 0"),
        ({"m": 4, "nbits": 17}, r"nbits must be a whole number from 1 to 16.*; got 17"),
        ({"m": 4, "nsplits": 0}, r"nsplits must be .*; got 0"),
        ({"m": 4, "beam": 2.0}, r"beam must be a whole number from 1 to 64.*; got 2\.0"),
        (
            {"m": 3, "nbits": 14},
            r"products of codewords must take at most 2 GiB; m=3 and nbits=14 need 3\.0\.",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(GpuzipError, match=f"ResidualQuantizer: {message}"):
        ResidualQuantizer(**settings)


def test_splits_divide_the_columns(real):
    with pytest.raises(GpuzipError, match=r"nsplits must divide d=384; got 5\. Use nsplits=6, 4, 3\."):
        ResidualQuantizer(2, nbits=4, nsplits=5).fit(real[:700])


def test_a_file_of_other_settings_is_refused(real):
    codec = ResidualQuantizer(2, nbits=4).fit(real[:700], n_iter=1)
    for change in (
        {"m": 3},
        {"nbits": 3},
        {"nsplits": 2},
        {"d": 385},
        {"d": "384"},
        {"seed": "x"},
        {"m": None},
    ):
        with pytest.raises(FormatError, match="residual: "):
            ResidualQuantizer.restore({**codec.config(), **change}, codec.state())


def test_the_bytes_of_tables_are_counted():
    codebooks = normal(2, 5, 4, 3)
    assert cross_products(codebooks).nbytes == cross_bytes(2, 5, 4)


def test_a_pickle_holds_the_codebooks_alone():
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    codec = ResidualQuantizer(3, 4).fit_quietly(x)
    before = len(pickle.dumps(codec))
    codes = codec.encode(x)
    assert len(pickle.dumps(codec)) == before
    assert torch.equal(pickle.loads(pickle.dumps(codec)).encode(x).data, codes.data)
