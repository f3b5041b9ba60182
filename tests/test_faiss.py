"""FAISS as the outside oracle: codes, distances, objective, layout, and both ways of conversion."""

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip.codecs.pq import Codebook
from gpuzip.ops import adc_scan, pack_bits
from gpuzip.training.kmeans import kmeans

faiss = pytest.importorskip("faiss")

MORE_SHAPES = [(24, 6), (32, 5), (128, 3), (16, 9)]
SHAPES = [
    (48, 8),
    (96, 4),
    (12, 10),
    *(pytest.param(*shape, marks=pytest.mark.full) for shape in MORE_SHAPES),
]


def codec_of(pq) -> gpuzip.ProductQuantizer:
    codec = gpuzip.from_faiss(pq)
    assert isinstance(codec, gpuzip.ProductQuantizer)
    return codec


def trained(x, m, nbits):
    pq = faiss.ProductQuantizer(x.shape[1], m, nbits)
    pq.cp.niter, pq.cp.min_points_per_centroid = 4, 1
    pq.train(x.numpy())
    return pq


@pytest.mark.parametrize(("m", "nbits"), SHAPES)
def test_the_same_codebook_gives_the_same_bytes(real, m, nbits):
    pq = trained(real[:2048], m, nbits)
    ours, theirs = codec_of(pq).encode(real).data, torch.from_numpy(pq.compute_codes(real.numpy()))
    assert ours.shape == theirs.shape
    differ = (ours != theirs).any(1).nonzero().view(-1)
    assert len(differ) <= 5e-6 * len(real) * m
    check_ties(pq, real[differ], ours[differ], theirs[differ])


def check_ties(pq, x, ours, theirs):
    """Where bytes differ, both choices are as near within 1e-5 of (distance + |x|^2)."""
    if not len(x):
        return
    S = pq.dsub
    distance = [
        (x - torch.from_numpy(pq.decode(c.numpy()))).view(-1, pq.M, S).square().sum(-1)
        for c in (ours, theirs)
    ]
    allowed = 1e-5 * (distance[1] + x.view(-1, pq.M, S).square().sum(-1))
    assert bool(((distance[0] - distance[1]).abs() <= allowed).all())


@pytest.mark.parametrize(("m", "nbits"), SHAPES)
def test_decoded_rows_are_equal(real, m, nbits):
    pq = trained(real[:2048], m, nbits)
    codes = codec_of(pq).encode(real[:500])
    assert np.array_equal(codes.decode().numpy(), pq.decode(codes.data.numpy()))


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize(("m", "nbits"), SHAPES)
def test_search_is_index_pq_search(real, real_queries, m, nbits, metric):
    pq = trained(real[:2048], m, nbits)
    codes = codec_of(pq).encode(real)
    index = gpuzip.to_faiss(codes, metric)
    for queries in (real_queries[:3], real_queries[:150]):
        check_same_search(codes, index, queries, metric)


def check_same_search(codes, index, queries, metric):
    want, want_ids = index.search(queries.numpy(), 10)
    values, ids = codes.search(queries, 10, metric)
    np.testing.assert_allclose(values.numpy(), want, rtol=2e-5, atol=2e-6)
    differ = ids != torch.from_numpy(want_ids)  # rows of equal score, in another order
    ours, theirs = (exact_scores(codes, queries, i, metric) for i in (ids, torch.from_numpy(want_ids)))
    torch.testing.assert_close(ours[differ], theirs[differ], rtol=2e-5, atol=2e-6)


def exact_scores(codes, queries, ids, metric):
    rows = codes.decode()[ids].double()
    difference = rows - queries[:, None].double()
    return difference.square().sum(-1) if metric == "l2" else (rows * queries[:, None]).sum(-1)


def test_adc_table_sums_are_faiss_distances(real):
    pq = trained(real[:2048], 48, 8)
    codes = codec_of(pq).encode(real[:1000])
    table = np.empty((48, 256), np.float32)
    pq.compute_distance_table(faiss.swig_ptr(real[7:8].numpy()), faiss.swig_ptr(table))
    scores = adc_scan(codes.data, torch.from_numpy(table)[None])[0]
    expected = ((real[7] - codes.decode()) ** 2).sum(1)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("nbits", range(1, 17))
def test_bit_layout_is_faiss_bitstring(nbits):
    values = np.random.default_rng(nbits).integers(0, 1 << nbits, (50, 7))
    ours = pack_bits(torch.from_numpy(values.astype(np.int32)), nbits).numpy()
    theirs = np.zeros_like(ours)
    for row, out in zip(values, theirs, strict=True):
        writer = faiss.BitstringWriter(faiss.swig_ptr(out), len(out))
        for value in row:
            writer.write(int(value), nbits)
    assert np.array_equal(ours, theirs)


@pytest.mark.full
@pytest.mark.parametrize(("m", "nbits", "n"), [(48, 8, 3000), (64, 4, 1000), (96, 4, 8000)])
def test_objective_is_within_a_percent_of_faiss(real, m, nbits, n):
    """Means over three seeds: one run's luck is larger than a percent."""
    x, K = real[:n], 1 << nbits
    ours, theirs = [], []
    for seed in range(3):
        centroids = kmeans(x, m, K, seed=seed).centroids
        codec = gpuzip.ProductQuantizer(m, nbits, fitted=Codebook(centroids, 384))
        ours.append(float((codec.encode(x).decode() - x).square().sum()))
        pq = faiss.ProductQuantizer(384, m, nbits)
        pq.cp.seed, pq.cp.min_points_per_centroid = 1234 + seed, 1
        pq.train(x.numpy())
        theirs.append(float(np.square(pq.decode(pq.compute_codes(x.numpy())) - x.numpy()).sum()))
    assert np.mean(ours) <= 1.01 * np.mean(theirs)


@pytest.mark.parametrize(("m", "nbits"), [(48, 8), (96, 4), (24, 6), (16, 9)])
def test_there_and_back(real, m, nbits):
    codes = (
        gpuzip.ProductQuantizer(m, nbits).fit(real, n_iter=2, min_points_per_centroid=1).encode(real[:300])
    )
    index = gpuzip.to_faiss(codes)
    assert np.array_equal(faiss.vector_to_array(index.codes).reshape(300, -1), codes.data.numpy())
    back = gpuzip.from_faiss(index)
    assert isinstance(back, gpuzip.Codes)
    assert torch.equal(back.data, codes.data)
    assert torch.equal(back.decode(), codes.decode())
    pq = gpuzip.to_faiss(codes.codec)
    assert np.array_equal(pq.compute_codes(real[:300].numpy()), codes.data.numpy())


def test_an_index_survives_its_own_file(real, tmp_path):
    codes = gpuzip.compress(real[:500], 48, 6)
    faiss.write_index(gpuzip.to_faiss(codes, "ip"), str(tmp_path / "x.index"))
    back = gpuzip.from_faiss(faiss.read_index(str(tmp_path / "x.index")))
    assert isinstance(back, gpuzip.Codes)
    assert torch.equal(back.data, codes.data)


SCALAR = [  # FAISS's name, our codec of its bytes
    ("QT_8bit", gpuzip.ScalarQuantizer(8)),
    ("QT_6bit", gpuzip.ScalarQuantizer(6)),
    ("QT_4bit", gpuzip.ScalarQuantizer(4)),
    ("QT_8bit_uniform", gpuzip.ScalarQuantizer(8, per="tensor")),
    ("QT_4bit_uniform", gpuzip.ScalarQuantizer(4, per="tensor")),
    ("QT_fp16", gpuzip.HalfQuantizer()),
    ("QT_bf16", gpuzip.HalfQuantizer("bfloat16")),
]
KINDS = [kind for kind, _ in SCALAR]


def kind_of(name):
    return getattr(faiss.ScalarQuantizer, name)


def spread(real):
    """Off the values of float16, which often lie on the very edge of a step."""
    return real + 1e-4 * torch.randn(real.shape, generator=torch.Generator().manual_seed(0))


def with_constants(real, d):
    x = spread(real[:2000, :d])
    x[:, 3], x[:, 5] = 0.25, 0.0
    return x


@pytest.mark.parametrize("d", [384, 13])
@pytest.mark.parametrize("kind", KINDS)
def test_a_scalar_quantizer_of_faiss_gives_the_same_bytes_and_rows(real, kind, d):
    x = with_constants(real, d)
    sq = faiss.ScalarQuantizer(d, kind_of(kind))
    sq.train(x.numpy())
    codec = gpuzip.from_faiss(sq)
    theirs = sq.compute_codes(x.numpy())
    codes = gpuzip.Codes(codec, torch.from_numpy(theirs))
    np.testing.assert_allclose(codes.decode().numpy(), sq.decode(theirs), rtol=1e-6, atol=2e-7)
    ours = codec.encode(x).data.numpy()
    assert np.mean(ours != theirs) < 1e-3
    far = np.abs(sq.decode(ours) - sq.decode(theirs))  # where they differ, by one step at its edge
    off = np.abs(np.abs(sq.decode(ours) - x.numpy()) - np.abs(sq.decode(theirs) - x.numpy()))
    assert far.max() <= 2.1 * np.abs(sq.decode(theirs) - x.numpy()).max()
    assert off.max() < 1e-6


@pytest.mark.parametrize("metric", ["l2", pytest.param("ip", marks=pytest.mark.full)])
@pytest.mark.parametrize("d", [384, pytest.param(13, marks=pytest.mark.full)])
@pytest.mark.parametrize(("kind", "codec"), SCALAR, ids=KINDS)
def test_scalar_codes_there_and_back(real, real_queries, kind, codec, metric, d):
    x, queries = with_constants(real, d), real_queries[:, :d].contiguous()
    if kind == "QT_bf16":
        queries = queries.bfloat16().float()  # as FAISS does, where the CPU multiplies bfloat16
    codes = codec.fit(x).encode(x)
    index = gpuzip.to_faiss(codes, metric)
    assert index.sq.qtype == kind_of(kind)
    assert np.array_equal(faiss.vector_to_array(index.codes).reshape(len(x), -1), codes.data.numpy())
    np.testing.assert_allclose(index.reconstruct_n(0, 50), codes[:50].decode().numpy(), rtol=1e-6, atol=2e-7)
    check_same_search(codes, index, queries, metric)
    back = gpuzip.from_faiss(index)
    assert torch.equal(back.data, codes.data)
    torch.testing.assert_close(back.decode(), codes.decode(), rtol=1e-6, atol=2e-7)
    sq = gpuzip.to_faiss(codes.codec)
    assert sq.qtype == kind_of(kind)
    assert np.mean(sq.compute_codes(x.numpy()) != codes.data.numpy()) < 1e-3


def test_a_range_of_all_columns_in_6_bits_is_written_for_each(real):
    codes = gpuzip.ScalarQuantizer(6, per="tensor").fit(real).encode(real[:100])
    index = gpuzip.to_faiss(codes)
    assert index.sq.qtype == kind_of("QT_6bit")
    np.testing.assert_allclose(index.reconstruct_n(0, 100), codes.decode().numpy(), rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize("steps", [100, 200, 255, 256])
def test_any_number_of_steps_is_faiss_steps(real, steps):
    x = spread(real)
    codec = gpuzip.ScalarQuantizer(steps=steps, range="quantile").fit(x)
    ours, theirs = codec.encode(x).data.numpy(), gpuzip.to_faiss(codec).compute_codes(x.numpy())
    assert np.mean(ours != theirs) < 1e-4


def test_a_scalar_index_survives_its_own_file(real, tmp_path):
    codes = gpuzip.ScalarQuantizer(4).fit(real).encode(real[:500])
    faiss.write_index(gpuzip.to_faiss(codes, "ip"), str(tmp_path / "x.index"))
    assert torch.equal(gpuzip.from_faiss(faiss.read_index(str(tmp_path / "x.index"))).data, codes.data)
    bits = gpuzip.BinaryQuantizer().fit(real).encode(real[:500])
    faiss.write_index_binary(gpuzip.to_faiss(bits), str(tmp_path / "b.index"))
    back = gpuzip.from_faiss(faiss.read_index_binary(str(tmp_path / "b.index")))
    assert torch.equal(back.data, bits.data)


@pytest.mark.parametrize("threshold", [0.0, "median"])
def test_bits_there_and_back(real, real_queries, threshold):
    codec = gpuzip.BinaryQuantizer(threshold).fit(real)
    codes, asked = codec.encode(real), codec.encode(real_queries)
    index = gpuzip.to_faiss(codes)
    want, want_ids = index.search(asked.data.numpy(), 10)
    values, ids = codes.search(real_queries, 10, "hamming")
    np.testing.assert_array_equal(values.numpy(), want)
    differing = np.unpackbits(asked.data.numpy()[:, None] ^ codes.data.numpy()[want_ids], axis=-1).sum(-1)
    np.testing.assert_array_equal(differing, values.numpy())  # rows as near, in another order
    back = gpuzip.from_faiss(index)
    assert torch.equal(back.data, codes.data)
    assert torch.equal(back.search(asked.data, 10, "hamming")[1], ids)
    if threshold == 0:
        assert torch.equal(back.codec.encode(real).data, codes.data)
        assert torch.equal(back.decode(), torch.where(real > 0, 1.0, -1.0))


def test_no_rows_there_and_back(real):
    for codec in (gpuzip.ProductQuantizer(48, 4), *(codec for _, codec in SCALAR), gpuzip.BinaryQuantizer()):
        codes = codec.fit(real[:1000]).encode(real[:0])
        index = gpuzip.to_faiss(codes)
        assert index.ntotal == 0
        assert gpuzip.from_faiss(index).shape == (0, 384)


def test_scalar_and_binary_codes_without_a_twin_are_refused(real):
    x = real[:300]
    with pytest.raises(gpuzip.GpuzipError, match=r"bits must be 8, 6 or 4 for FAISS; got 5\. Fit"):
        gpuzip.to_faiss(gpuzip.ScalarQuantizer(5).fit(x))
    with pytest.raises(
        gpuzip.GpuzipError, match=r"the codec must not be signed; FAISS's codes are unsigned\. Fit one with"
    ):
        gpuzip.to_faiss(gpuzip.ScalarQuantizer(signed=True).fit(x))
    bits = gpuzip.BinaryQuantizer().fit(x)
    with pytest.raises(gpuzip.GpuzipError, match=r"FAISS has no binary quantizer\. Pass Codes"):
        gpuzip.to_faiss(bits)
    with pytest.raises(gpuzip.GpuzipError, match="metric must be 'hamming' for IndexBinaryFlat; got 'ip'"):
        gpuzip.to_faiss(bits.encode(x), "ip")
    with pytest.raises(gpuzip.GpuzipError, match="d must be a multiple of 8 for IndexBinaryFlat; got 13"):
        gpuzip.to_faiss(gpuzip.BinaryQuantizer().fit(x[:, :13]).encode(x[:, :13]))
    with pytest.raises(gpuzip.GpuzipError, match="metric must be 'l2' or 'ip'; got 'cosine'"):
        gpuzip.to_faiss(gpuzip.HalfQuantizer().fit(x).encode(x), "cosine")
    for untrained in (
        faiss.IndexScalarQuantizer(8, kind_of("QT_8bit")),
        faiss.ScalarQuantizer(8, kind_of("QT_8bit")),
        faiss.IndexPQ(8, 2, 4),
    ):
        with pytest.raises(gpuzip.GpuzipError, match=r"must be trained. Call its train\(x\) first"):
            gpuzip.from_faiss(untrained)
    with pytest.raises(gpuzip.GpuzipError, match=r"the qtype must be one of QT_8bit, QT_6bit"):
        gpuzip.from_faiss(faiss.ScalarQuantizer(8, kind_of("QT_8bit_direct")))
    with pytest.raises(gpuzip.GpuzipError, match=r"the codec must be one of ProductQuantizer, .*; got str"):
        gpuzip.to_faiss("PQ48")  # type: ignore[arg-type]


def test_what_has_no_twin_is_refused(real):
    padded = gpuzip.ProductQuantizer(m=7, nbits=4, pad=True).fit(real[:1000])
    with pytest.raises(gpuzip.GpuzipError, match="d=384 must be a multiple of m=7"):
        gpuzip.to_faiss(padded)
    with pytest.raises(gpuzip.GpuzipError, match="got IndexFlatL2"):
        gpuzip.from_faiss(faiss.IndexFlatL2(4))
    with pytest.raises(gpuzip.GpuzipError, match=r"metric must be .*; got 'cosine'"):
        gpuzip.to_faiss(gpuzip.compress(real[:1000]), "cosine")
    with pytest.raises(gpuzip.NotFittedError, match="not fitted"):
        gpuzip.to_faiss(gpuzip.ProductQuantizer())


WRAPPED = [  # factory strings, and whether lists code differences from centroids
    *("OPQ8,PQ8x4", "OPQ4_8,PQ4x4", "PCA8,SQ8", "PCAR8,PQ4x4", "PCA8,RQ2x4", "RR8,SQ4", "OPQ8,SQfp16"),
    *("L2norm,PQ8x4", "L2norm,OPQ8,PQ8x4", "IVF8,PQ8x4", "IVF8,SQ8", "IVF8,RQ2x4", "OPQ8,IVF8,PQ8x4"),
    *("PQ8x4fs", "PQ8x4,Refine(SQ8)", "SQ8,RFlat", "HNSW16,PQ8x4", "HNSW16_SQ8", "NSG16,SQ8", "PQ8np"),
]


def some_rows(n=600):
    x = torch.randn(n, 16, generator=torch.Generator().manual_seed(0))
    return (x + torch.linspace(0, 2, 16)).numpy()


def built(spec, x, by_residual=True):
    index = faiss.index_factory(16, spec)
    if not by_residual:
        faiss.extract_index_ivf(index).by_residual = by_residual
    index.train(x)
    index.add(x)
    if "IVF" in spec:
        faiss.extract_index_ivf(index).make_direct_map()
    return index


FAST_WRAPPED = {"IVF8,PQ8x4", "PCAR8,PQ4x4"}


@pytest.mark.parametrize(
    ("spec", "by_residual"),
    [
        pytest.param(spec, own, marks=() if spec in FAST_WRAPPED else pytest.mark.full)
        for spec in WRAPPED
        for own in ((True, False) if "IVF" in spec else (True,))
    ],
)
def test_an_index_in_a_wrapper_gives_the_rows_that_it_decodes(spec, by_residual, tmp_path):
    x = some_rows()
    index = built(spec, x, by_residual)
    codes, ids = gpuzip.from_faiss(index, return_ids=True)
    assert ids.tolist() == list(range(600))
    base = faiss.downcast_index(index.base_index) if hasattr(index, "base_index") else index
    np.testing.assert_allclose(codes.decode().numpy(), base.reconstruct_n(0, 600), atol=1e-5)
    codes.save(tmp_path / "x")
    again = gpuzip.open(tmp_path / "x")
    torch.testing.assert_close(again.decode(), codes.decode(), rtol=0, atol=1e-6)
    assert torch.equal(gpuzip.from_faiss(index).decode(), codes.decode())


@pytest.mark.parametrize("rotation", [*gpuzip.rotations.KINDS[:-1], gpuzip.Rotation("truncate", 8)])
def test_rotated_codes_there_and_back(rotation):
    x = torch.from_numpy(some_rows())
    codes = gpuzip.ProductQuantizer(4, 4, rotation=rotation).fit(x, min_points_per_centroid=1).encode(x)
    back = gpuzip.from_faiss(gpuzip.to_faiss(codes))
    assert torch.equal(back.data, codes.data)
    torch.testing.assert_close(back.decode(), codes.decode(), rtol=0, atol=5e-6)
    assert torch.equal(back.search(x[:3], 5, "l2")[1], codes.search(x[:3], 5, "l2")[1])


@pytest.mark.parametrize("spec", ["IDMap,PQ8x4", "IDMap2,SQ8", "IDMap,IVF4,PQ8x4", "IVF4,SQ8"])
def test_ids_of_an_index_are_returned_or_refused(spec):
    x = some_rows()
    ids = np.random.default_rng(0).permutation(5000)[:600]
    index = faiss.index_factory(16, spec)
    index.train(x)
    index.add_with_ids(x, ids)
    codes, found = gpuzip.from_faiss(index, return_ids=True)
    assert found.tolist() == sorted(ids.tolist())
    near = torch.cosine_similarity(codes.decode(), torch.from_numpy(x[np.argsort(ids)]))
    assert float(near.mean()) > 0.9
    with pytest.raises(gpuzip.GpuzipError, match=r"ids of the Index.* must be 0 to 599.*return_ids=True"):
        gpuzip.from_faiss(index)
    with pytest.raises(gpuzip.GpuzipError, match="return_ids must be False for a ProductQuantizer"):
        gpuzip.from_faiss(faiss.ProductQuantizer(8, 2, 4), return_ids=True)


def test_ids_of_a_binary_index_are_returned(real):
    bits = gpuzip.BinaryQuantizer().fit(real).encode(real[:50])
    index = faiss.IndexBinaryIDMap(gpuzip.to_faiss(bits[:0]))
    index.add_with_ids(bits.data.numpy(), np.arange(50)[::-1].copy())
    assert torch.equal(gpuzip.from_faiss(index).data, bits.data.flip(0))


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("Flat", r"got IndexFlat.*\. Its rows are not compressed: compress index\.reconstruct_n"),
        ("HNSW16", "got IndexFlat.* Its rows are not compressed"),
        ("IVF4,Flat", "got IndexIVFFlat. Its rows are not compressed"),
        ("IVF4,PQ8x4fs", "got IndexIVFPQFastScan. It packs codes"),
        ("PCAW8,SQ8", "the PCAMatrix before the index must have orthonormal directions"),
        ("PCA8,L2norm,SQ8", "must not follow one with a mean"),
        ("Pad32,SQ8", "the RemapDimensionsTransform before the index must be a rotation"),
        ("PCA8,SQfp16", "a HalfQuantizer must code rows themselves"),
        ("IVF4,SQfp16", "a HalfQuantizer must code rows themselves.*by_residual=False"),
        ("RaBitQ", "got IndexRaBitQ. Its factors differ"),
    ],
)
def test_an_index_that_cannot_be_read_says_why(spec, match):
    with pytest.raises(gpuzip.GpuzipError, match=match):
        gpuzip.from_faiss(built(spec, some_rows()))


def test_more_lists_than_mixed_codes_have_parts_are_refused():
    with pytest.raises(gpuzip.GpuzipError, match=r"must have at most 255 lists.*by_residual=False"):
        gpuzip.from_faiss(built("IVF256,PQ8x4", some_rows(1200)))
