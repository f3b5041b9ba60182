"""RaBitQuantizer: the nearest grid point, unbiased estimates and their bound, searches plane by plane."""

import itertools
import math
from typing import Any, cast

import pytest
import torch

import gpuzip
from gpuzip import BinaryQuantizer, Codes, GpuzipError, RaBitQuantizer, Rotation, recall
from gpuzip._core.checks import METRICS
from gpuzip._core.planes import Planes
from gpuzip.codecs.rabitq import REACH, Mean
from gpuzip.errors import FormatError
from gpuzip.ops import OPS, pack_bits, rabitq_encode, rabitq_signs, unpack_bits, use_loops, zero_rows
from gpuzip.search.exact import best
from gpuzip.search.scorer import Exhaustive
from gpuzip.search.scorers.rabitq import RaBitQScorer
from gpuzip.search.scorers.rabitq_factors import first_bytes, read_first


def turn_of(codec: Any) -> Rotation:
    assert isinstance(codec.rotation, Rotation)
    return codec.rotation


def parts_of(codes: Codes) -> tuple[torch.Tensor, ...]:
    assert isinstance(codes.data, Planes)
    return codes.data.parts


def row_cosine(codes: Codes, x: torch.Tensor) -> float:
    quality = codes.quality(x)
    assert quality is not None
    return quality.row_cosine


def exact(queries, x, metric):
    """(Q, N) float64 scores of the source's rows, the greater the better."""
    q, x = queries.double(), x.double()
    if metric == "cosine":
        q, x = (torch.nn.functional.normalize(rows, dim=1) for rows in (q, x))
    return -torch.cdist(q, x).square() if metric == "l2" else q @ x.T


def keys(searched, queries, metric):
    """(Q, N) float32 estimates, the greater the better."""
    every = torch.arange(len(searched.packed)).expand(len(queries), -1)
    return searched.codec.scorer(searched.packed, queries, metric).gather(every)


@pytest.mark.parametrize(("D", "bits"), [(1, 3), (2, 4), (3, 2), (3, 3), (5, 2), (6, 1)])
def test_the_point_is_that_of_all_points_with_the_nearest_direction(D, bits):
    x = torch.randn(40, D, generator=torch.Generator().manual_seed(D))
    center = torch.full((D,), 0.25)
    codes, sums = rabitq_encode(x, center, bits)
    odd, short = range(1 - (1 << bits), 1 << bits, 2), []
    for n, row in enumerate((x - center).tolist()):
        point = [2 * u + 1 - (1 << bits) for u in codes[n].tolist()]
        assert set(point) <= set(odd)
        length = math.sqrt(sum(value * value for value in row))

        def cosine(g, row=row, length=length):
            return sum(a * b for a, b in zip(g, row, strict=True)) / math.sqrt(sum(a * a for a in g)) / length

        nearest = max(cosine(g) for g in itertools.product(odd, repeat=D))
        short.append(nearest - cosine(point))
        dot = sum(a * b for a, b in zip(point, row, strict=True))
        want = [
            length**2,
            sum(map(abs, row)),
            dot,
            sum(a * a for a in point),
            sum(0.25 * value for value in row),
        ]
        assert sums[n].tolist() == pytest.approx(want, rel=1e-5, abs=1e-6)
    assert max(short) < (8e-3 if bits > 1 else 1e-6)  # stretches between those that are tried
    assert sum(short) / len(short) < 1e-3


def test_more_bits_are_nearer(real):
    x, last = real[:300], 0.0
    for bits in range(1, 9):
        cosine = row_cosine(RaBitQuantizer(bits).fit(x).encode(x), x)
        assert 1 - cosine < (1 - last) / 2.5
        last = cosine
    assert last > 0.9999


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_the_layout_is_planes_of_bits_the_highest_first(real, bits):
    codec = RaBitQuantizer(bits, rotation=None).fit(real[:200, :37])
    x = real[200:230, :37]
    parts = parts_of(codec.encode(x))
    u = rabitq_encode(x, codec.center, bits)[0]
    planes = [parts[0], *(parts[2].split(5, 1) if bits > 1 else ())]
    for bit, plane in zip(reversed(range(bits)), planes, strict=True):
        assert torch.equal(unpack_bits(plane, 37, 1), (u >> bit) & 1)
    assert codec.code_size == bits * 5 + (6 if bits == 1 else 10)
    one = RaBitQuantizer(1, rotation=None, fitted=codec.fitted).encode(x)
    assert torch.equal(torch.cat(parts[:2], 1), one.data[:])  # plane one and its factors are codes of one bit


def test_bytes_of_a_row_by_hand():
    """They are what files hold, so they never change."""
    point = torch.tensor([[3, -1, 1, -3, 1, 1, -1, 3]])  # |g|^2 is 32, sum |g[d]| is 14
    x = 0.5 * point
    codec = RaBitQuantizer(2, rotation=None).fit(torch.cat([x, -x]))
    surplus = 8 / (0.875**2 * 8) - 1
    want = [
        0b10110101,  # the signs
        *(0x80, 0x7D),  # 0.875 = 1.75 / 2: the exponent 62 of 7 bits, and 384 / 512
        *torch.tensor([surplus]).half().view(torch.uint8).tolist(),
        *(0, 0),  # no lean
        0b11000011,  # 1 where |g| is 3 above and 1 below
        *(0x00, 0x7C),  # 0.5
        *(0, 0),  # nothing is left
    ]
    codes = codec.encode(x)
    assert codes.data[:].tolist() == [want]
    assert torch.equal(codes.decode(), x)
    assert Codes(codec, torch.tensor([want], dtype=torch.uint8)).decode().tolist() == x.tolist()


@pytest.mark.parametrize("scale", [1e-12, 1.0, 3e4, 1e15])
def test_factors_keep_three_digits_of_any_length(scale):
    D = 20
    x = scale * torch.randn(50, D, generator=torch.Generator().manual_seed(0))
    center = x.mean(0)
    sums = rabitq_encode(x, center, 1)[1]
    first = read_first(first_bytes(sums, torch.zeros(50).bool(), D, torch.linalg.vector_norm(center)))
    o = x - center
    torch.testing.assert_close(first.square(D), o.square().sum(1), rtol=1e-3, atol=0)
    torch.testing.assert_close(first.step, o.abs().mean(1), rtol=2e-3, atol=0)
    lean = torch.nn.functional.normalize(o.double(), dim=1, eps=0) @ (center / center.norm()).double()
    torch.testing.assert_close(first.lean.double(), lean, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bits", [1, 3])
def test_estimates_are_those_of_the_paper(real, real_queries, metric, bits):
    """<q, c> + <q along c, o>, exactly, and <q across c, f g>: f g is the decoded offset, longer."""
    x, q = real[:200] * 3, real_queries[:7].double()
    codec = RaBitQuantizer(bits).fit(x)
    codes = codec.encode(x)
    c = turn_of(codec).reverse_transform(codec.center[None])[0].double()
    o, decoded = x.double() - c, codes.decode().double() - c
    point = decoded * (o.square().sum(1) / (decoded * o).sum(1))[:, None]
    if metric == "cosine":
        q = q / q.norm(dim=1, keepdim=True)
    along = (q @ c / c.square().sum())[:, None] * c
    product = q @ c[:, None] + along @ o.T + (q - along) @ point.T
    want = {
        "ip": product,
        "cosine": product / x.double().norm(dim=1),
        "l2": 2 * product - q.square().sum(1, keepdim=True) - x.double().square().sum(1),
    }[metric]
    torch.testing.assert_close(keys(codes, q.float(), metric).double(), want, rtol=2e-3, atol=4e-3)


@pytest.mark.full
@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_estimates_are_unbiased_over_rotations(bits, metric):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(12, 32, generator=g) * torch.logspace(0, -1, 32) + 0.3
    q = x[:3] + 0.3 * torch.randn(3, 32, generator=g)
    want, draws = exact(q, x, metric), 400
    errors = torch.stack(
        [
            keys(codec.encode(x), q, metric).double() - want
            for codec in (RaBitQuantizer(bits, rotation="random").fit(x, seed=i) for i in range(draws))
        ]
    )
    standard = errors.std(0) / draws**0.5
    assert bool((errors.mean(0).abs() < 4.5 * standard + 5e-4 * want.abs()).all())
    assert float((errors.mean(0) / standard).abs().mean()) < 1.5
    decoded = RaBitQuantizer(1, rotation="random").fit(x).encode(x).decode()
    assert float((x - x.mean(0)).mul(decoded - x.mean(0)).sum() / (x - x.mean(0)).square().sum()) < 0.8


@pytest.mark.parametrize("metric", METRICS)
def test_nineteen_of_twenty_estimates_are_within_the_bound(real, real_queries, metric):
    x, q = real[:3000], real_queries[:100]
    codes = RaBitQuantizer(4).fit(x).encode(x)
    plane, bound = (codes.codec.coarse(codes.packed, kind) for kind in ("plane", "bound"))
    estimate, reached = keys(plane, q, metric), keys(bound, q, metric)
    error, hidden = (estimate - exact(q, x, metric)).abs(), reached - estimate
    within = float((error <= hidden).double().mean())
    assert (
        0.95 <= within < 0.97
    )  # of a normal distribution, 0.943 at 1.9 of its standard errors, and a little more
    assert float((error <= hidden / REACH).double().mean()) < 0.75


@pytest.mark.parametrize("bits", [1, 4, *(pytest.param(b, marks=pytest.mark.full) for b in (2, 8))])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("Q", [1, 20])
def test_a_search_is_exact_over_the_estimates(real, real_queries, bits, metric, Q):
    x, q, mask = real[:5000], real_queries[:Q], torch.arange(5000) % 3 != 0
    codes = RaBitQuantizer(bits).fit(x[:500]).encode(x)
    every = keys(codes, q, metric)
    for allowed in (None, mask):
        values, ids = codes.search(q, 10, metric, mask=allowed)
        kept = every if allowed is None else every.masked_fill(~allowed, -math.inf)
        want = kept.sort(dim=1, descending=True, stable=True).values
        got = every.gather(1, ids)
        assert torch.equal(got, want[:, :10])
        assert torch.equal(values, -got if metric == "l2" else got)
    scorer = codes.codec.scorer(codes.packed, q, metric, mask)
    for one, other in zip(best(scorer, 25), best(Exhaustive(scorer, codes.device), 25), strict=True):
        assert torch.equal(one, other)
    outside = torch.tensor([[-1, 5000, 0, 1]]).expand(Q, -1)
    assert scorer.gather(outside).isneginf().tolist() == [[True, True, True, False]] * Q


def test_planes_are_put_side_by_side_some_rows_at_a_time(real, real_queries, monkeypatch):
    codes = RaBitQuantizer(3).fit(real[:500]).encode(real[:5000])
    want = codes.search(real_queries[:3], 10)
    monkeypatch.setattr("gpuzip.search.scorers.rabitq._ROWS", {"cpu": 1024, "cuda": 1024})
    monkeypatch.setattr("gpuzip.search.memory.WORKSPACE", 1)
    for one, other in zip(codes.search(real_queries[:3], 10), want, strict=True):
        assert torch.equal(one, other)


@pytest.mark.full
def test_planes_first_finds_what_the_full_scan_finds(real, real_queries):
    codes, truth = RaBitQuantizer(4).fit(real).encode(real), exact(real_queries, real, "ip").topk(10)[1]
    full = codes.search(real_queries, 10)
    found = recall(full[1], truth)
    for kind, multiplier, least in (("plane", 4, 0.01), ("plane", 10, 0.001), ("bound", 2, 0.001)):
        values, ids = codes.search(
            real_queries, 10, rescore=True, candidates=kind, rescore_multiplier=multiplier
        )
        assert recall(ids, truth) > found - least, (kind, multiplier)
        both = (ids[:, :, None] == full[1][:, None]) & True
        assert torch.equal(values[both.any(2)], full[0][both.any(1)])  # the same estimates, to the bit
    assert found > 0.95
    read = sum(codes.codec.plane_sizes[:2]) + 4 * 10 / len(codes) * sum(codes.codec.plane_sizes[2:])
    assert read < codes.codec.code_size / 3
    by_bits = codes.search(real_queries, 10, rescore=True, candidates="hamming", rescore_multiplier=10)[1]
    assert recall(by_bits, truth) > found - 0.02


@pytest.mark.parametrize("metric", METRICS)
def test_by_bounds_no_better_row_is_left_out(real, real_queries, metric):
    """Beyond the candidates no row reaches the last answer, however few were asked for first."""
    codes, q = RaBitQuantizer(5).fit(real[:4000]).encode(real[:4000]), real_queries[:40]
    mask = torch.arange(4000) % 5 > 0
    bound = keys(codes.codec.coarse(codes.packed, "bound"), q, metric).masked_fill(~mask, -math.inf)
    full = keys(codes, q, metric).masked_fill(~mask, -math.inf)
    values, ids = codes.search(
        q, 3, metric, mask=mask, rescore=True, candidates="bound", rescore_multiplier=1
    )
    last = -values[:, -1:] if metric == "l2" else values[:, -1:]
    better = (full > last) & (bound > last)
    assert bool(better.gather(1, ids).sum(1).eq(better.sum(1)).all())
    few = codes.search(q, 3, metric, mask=mask, rescore=True, candidates="plane", rescore_multiplier=1)[1]
    assert not torch.equal(ids, few)
    everything = codes.search(q[:2], 4000, metric, rescore=True, candidates="bound")
    assert torch.equal(everything[1].sort(1).values, torch.arange(4000).expand(2, -1))


def test_a_float_store_has_the_last_word_on_bounds_too(real, real_queries):
    codes, truth = RaBitQuantizer(1).fit(real).encode(real), exact(real_queries, real, "cosine").topk(10)[1]
    ids = codes.search(real_queries, 10, rescore=real, candidates="bound")[1]
    assert recall(ids, truth) > 0.99
    better = RaBitQuantizer(6).fit(real).encode(real)
    assert recall(codes.search(real_queries, 10, rescore=better, rescore_multiplier=10)[1], truth) > 0.97


def test_signs_are_counted_like_binary_codes(real, real_queries):
    codec = RaBitQuantizer(3, rotation=None).fit(real)
    codes = codec.encode(real)
    values, ids = codes.search(real_queries[:5], 10, "hamming")
    differ = (real_queries[:5, None] >= codec.center) != (real >= codec.center)
    assert torch.equal(values, differ.sum(2).gather(1, ids).int())
    assert torch.equal(values, differ.sum(2).topk(10, largest=False, sorted=True)[0].int())
    again = codes.search(codec.encode(real_queries[:5]).data[:], 10, "hamming")
    assert torch.equal(again[1], ids)
    binary = BinaryQuantizer("dim_mean").fit(real).encode(real)
    assert torch.equal(binary.search(real_queries[:5], 10, "hamming")[0], values)


@pytest.mark.parametrize("scale", [1e-12, 1e15])
@pytest.mark.parametrize("bits", [1, 4])
def test_rows_of_any_length(real, real_queries, scale, bits):
    plain = RaBitQuantizer(bits).fit(real[:1000]).encode(real[:1000])
    codes = RaBitQuantizer(bits).fit(real[:1000] * scale).encode(real[:1000] * scale)
    torch.testing.assert_close(codes.decode() / scale, plain.decode(), rtol=0, atol=1e-3)
    for metric in METRICS:
        got = codes.search(real_queries[:9] * scale, 10, metric)[0].double()
        got /= 1 if metric == "cosine" else scale**2
        want = plain.search(real_queries[:9], 10, metric)[0].double()
        torch.testing.assert_close(got, want, rtol=0, atol=3e-3)


def test_a_mean_far_from_nothing_costs_nothing(real, real_queries):
    """What is known exactly of the center is not estimated."""
    far = 50 * torch.randn(384, generator=torch.Generator().manual_seed(0))
    truth = exact(real_queries, real, "l2").topk(10)[1]
    near = RaBitQuantizer(1).fit(real).encode(real).search(real_queries, 10, "l2")[1]
    moved = RaBitQuantizer(1).fit(real + far).encode(real + far)
    assert recall(moved.search(real_queries + far, 10, "l2")[1], truth) > recall(near, truth) - 0.02


def test_zero_rows_and_zero_queries_have_cosine_0(real, real_queries):
    x = torch.cat([real[:50], torch.zeros(2, 384)])
    for bits in (1, 2):
        codes = RaBitQuantizer(bits).fit(real).encode(x)
        assert keys(codes, real_queries[:4], "cosine")[:, 50:].eq(0).all()
        assert keys(codes, torch.zeros(1, 384), "cosine").eq(0).all()
        assert keys(codes, real_queries[:4], "cosine")[:, :50].abs().max() < 1.5
    alike = torch.ones(5, 16)
    codes = RaBitQuantizer(4).fit(alike).encode(alike)
    torch.testing.assert_close(codes.decode(), alike, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(codes.search(alike[:1], 5)[0], torch.ones(1, 5), rtol=1e-3, atol=0)


@pytest.mark.parametrize("d", [1, 2, 9])
def test_short_rows(d):
    x = torch.randn(50, d, generator=torch.Generator().manual_seed(d))
    codes = RaBitQuantizer(4).fit(x).encode(x)
    assert float((codes.decode() - x).square().mean()) < 0.05 * float(x.var())
    assert codes.search(x[:3], 4)[1].shape == (3, 4)
    assert codes[:0].search(x[:3], 4)[1].shape == (3, 0)


def test_the_rotation_helps_where_values_are_uneven(real, real_queries):
    stretched = torch.logspace(0, -2, 384)
    x, q = real * stretched, real_queries * stretched
    truth = exact(q, x, "cosine").topk(10)[1]
    found = [
        recall(RaBitQuantizer(1, rotation=rotation).fit(x).encode(x).search(q, 10)[1], truth)
        for rotation in ("hadamard", None)
    ]
    assert found[0] > found[1] + 0.02


@pytest.mark.full
def test_at_the_bytes_of_faiss_it_finds_as_much_and_decodes_better(real, real_queries):
    faiss = pytest.importorskip("faiss")
    if not hasattr(faiss, "IndexRaBitQ"):
        pytest.skip("this faiss has no RaBitQ")
    truth = exact(real_queries, real, "cosine").topk(10)[1]
    for bits, word in ((1, "RaBitQ"), (4, "RaBitQ4")):
        try:
            index = faiss.index_factory(384, f"RR,{word}", faiss.METRIC_INNER_PRODUCT)
        except RuntimeError:
            pytest.skip(f"this faiss has no {word}")
        index.train(real.numpy())
        index.add(real.numpy())
        theirs = recall(torch.from_numpy(index.search(real_queries.numpy(), 10)[1]), truth)
        codes = RaBitQuantizer(bits).fit(real).encode(real)
        assert codes.codec.code_size <= faiss.downcast_index(index.index).code_size
        assert recall(codes.search(real_queries, 10)[1], truth) > theirs - 0.005
        decoded = torch.from_numpy(index.sa_decode(index.sa_encode(real.numpy())))
        cosine = float(torch.cosine_similarity(decoded, real).mean())
        assert row_cosine(codes, real) > cosine + (0.15 if bits == 4 else 0)


@pytest.mark.full
def test_principal_directions_are_mixed(real, real_queries):
    """Along them values are so uneven that no grid fits; few of them, mixed, are worth their bytes."""
    truth = exact(real_queries, real, "cosine").topk(10)[1]
    codec = RaBitQuantizer(2, rotation=Rotation("pca", dims=256)).fit(real)
    plain = Rotation("pca", dims=256).fit(real)
    rows = turn_of(codec).apply(real)
    torch.testing.assert_close(rows.norm(dim=1), plain.apply(real).norm(dim=1))
    assert rows.var(0).max() < 3 * rows.var(0).min() < 0.5 * plain.apply(real).var(0).max()
    as_it_is = RaBitQuantizer(2, fitted=Mean(plain.apply(real).mean(0)), rotation=plain)
    found, plainly = (
        recall(some.encode(real).search(real_queries, 10)[1], truth) for some in (codec, as_it_is)
    )
    assert found > plainly + 0.08
    again = RaBitQuantizer(2, rotation=Rotation("pca", dims=256)).fit(real)
    assert torch.equal(turn_of(again).matrix, turn_of(codec).matrix)


@pytest.mark.parametrize("rotation", [None, "pca", Rotation("pca", dims=100), Rotation("truncate", dims=128)])
def test_any_rotation_goes_before_it(real, real_queries, rotation):
    codec = RaBitQuantizer(4, rotation=rotation).fit(real)
    codes = codec.encode(real)
    kept = codec.width
    assert codec.code_size == 4 * -(-kept // 8) + 10
    for metric in METRICS:
        error = keys(codes[:500], real_queries[:9], metric) - exact(
            real_queries[:9], codes.decode()[:500], metric
        )
        assert float(error.abs().mean()) < 0.02


def test_bad_input(real):
    no_bits: list[Any] = [0, 9, 1.5, True, "4"]
    for bits in no_bits:
        with pytest.raises(
            GpuzipError, match=r"RaBitQuantizer: bits must be a whole number from 1 to 8; got .*"
        ):
            RaBitQuantizer(bits)
    with pytest.raises(GpuzipError, match=r"RaBitQuantizer\.fit: x must have at least one row"):
        RaBitQuantizer().fit(real[:0])
    codes = RaBitQuantizer(2).fit(real[:99]).encode(real[:99])
    kinds = "one of l2, ip, cosine, hamming, plane, bound"
    with pytest.raises(GpuzipError, match=rf"candidates must be {kinds} for these codes; got 'signs'"):
        codes.search(real[:1], rescore=True, candidates="signs")
    with pytest.raises(GpuzipError, match=r"candidates='plane' must be given with rescore"):
        codes.search(real[:1], candidates="plane")
    with pytest.raises(GpuzipError, match=r"metric must be one of l2, ip, cosine, hamming; got 'plane'"):
        codes.search(real[:1], metric="plane")  # type: ignore[arg-type]
    with pytest.raises(GpuzipError, match=r"candidates must be one of l2, ip, cosine for .*'plane'"):
        gpuzip.compress(real[:99], 48).search(real[:1], rescore=True, candidates="plane")
    config, state = codes.codec._config(), codes.codec._state()
    for wrong in ({"bits": 0}, {"bits": "2"}, {"d": 383}, {"d": "x"}):
        with pytest.raises(FormatError, match="rabitq: "):
            RaBitQuantizer.restore(config | wrong, state)
    with pytest.raises(
        FormatError, match=r"rabitq: center must be \(384,\) float32; got \(384,\) torch.float64"
    ):
        RaBitQuantizer.restore(config, {"center": state["center"].double()})


def test_a_scorer_of_some_queries_is_theirs(real, real_queries):
    codes = RaBitQuantizer(3).fit(real[:300]).encode(real[:300])
    scorer = codes.codec._scorer(codes.packed, turn_of(codes.codec).apply(real_queries[:6]), "l2", None)
    assert isinstance(scorer, RaBitQScorer)
    some = torch.tensor([4, 1])
    ids = torch.arange(300).expand(6, -1)
    assert torch.equal(scorer.exact(some).gather(ids[:2]), scorer.gather(ids)[some])
    assert torch.equal(scorer.ceiling(torch.ones(2, 1)), torch.ones(2, 1))


def test_codes_of_one_bit_stand_alone(real, tmp_path):
    """Plane one and its factors are a file of codes of one bit, once they are given that codec."""
    codes = RaBitQuantizer(4).fit(real[:200]).encode(real[:200])
    first = codes.codec.coarse(codes.packed, "plane")
    one = Codes(cast(RaBitQuantizer, first.codec), first.packed.data)
    one.save(tmp_path / "one")
    back = gpuzip.open(tmp_path / "one", verify=True)
    assert isinstance(back, Codes)
    assert torch.equal(back.decode(), one.decode())
    assert torch.equal(back.search(real[:3], 5)[1], one.search(real[:3], 5)[1])
    assert parts_of(one)[0] is parts_of(codes)[0]


def test_the_former_keyword_of_the_center_warns(real):
    codec = RaBitQuantizer().fit(real[:200])
    with pytest.warns(DeprecationWarning, match="center= is now fitted="):
        same = RaBitQuantizer(center=codec.center, rotation=codec.rotation)  # type: ignore[call-arg]
    assert same.same_as(codec)


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_signs_are_the_codes_of_one_bit(loops, dtype):
    for N, D in [(0, 3), (1, 1), (37, 13), (9, 64), (300, 129)]:
        x = torch.randn(N, D, generator=torch.Generator().manual_seed(D)).to(dtype)
        center = x.float().mean(0) if N > 1 else torch.zeros(D)
        if N > 3:
            x[1], x[2], x[3, 1:] = 0.0, -0.0, 0.0
            x[4] = center.to(dtype)  # offsets of 0 where the dtype holds the center
        with use_loops(loops):
            packed, sums, zeros = rabitq_signs(x, center)
        codes, want = OPS["rabitq_encode"].reference(x, center, torch.ones(1), torch.ones(1), 1)
        assert torch.equal(packed, pack_bits(codes, 1))
        torch.testing.assert_close(sums, want, rtol=1e-5, atol=1e-6)
        assert torch.equal(zeros, (x == 0).all(1)) and torch.equal(zero_rows(x), zeros)
