"""Bits for dimensions, bits for rows, and budgets that hold to the byte."""

from pathlib import Path

import pytest
import torch

import gpuzip
from gpuzip import Codes, LloydMaxQuantizer, MixedCodes, MixedLloydMaxQuantizer
from gpuzip.choose.by_bytes import allot_rows, parse_bytes
from gpuzip.errors import FormatError, GpuzipError


def mse(y, x):
    return float((y - x).square().mean())


@pytest.fixture(scope="module")
def uneven(real):
    """Real embeddings, half of whose dimensions hardly vary."""
    return real[:2000] * torch.where(torch.arange(384) % 2 == 0, 1.0, 0.05)


@pytest.fixture(scope="module")
def frequent(real):
    """Rows of which the first matter most, as words by frequency."""
    return real[:3000], 1 / (torch.arange(3000) + 1.0)


@pytest.fixture(scope="module")
def mixed(frequent):
    x, importance = frequent
    return gpuzip.compress(x, bits_per_dim=2, importance=importance)


@pytest.mark.parametrize("bits", [0.1, 0.5, 1, 1.37, 2, 3, 4, 6.5, 8])
def test_codes_take_no_more_than_their_bits(real, bits):
    codec = MixedLloydMaxQuantizer(bits).fit(real[:500])
    assert 0 < codec.code_size <= 384 * bits / 8
    assert codec.code_size > 0.97 * 384 * bits / 8 - 1
    assert codec.encode(real[:9]).data.shape == (9, codec.code_size)


@pytest.mark.full
def test_bits_go_to_the_dimensions_that_vary(uneven):
    codec = MixedLloydMaxQuantizer(2).fit(uneven)
    bits = codec.state()["bits"]
    assert int(bits[0::2].min()) > int(bits[1::2].max())
    y = codec.encode(uneven).decode()
    assert mse(y, uneven) < 0.5 * mse(
        LloydMaxQuantizer(2, per="dim").fit(uneven).encode(uneven).decode(), uneven
    )


@pytest.mark.full
@pytest.mark.parametrize("rotation", [None, "pca"])
def test_what_a_fit_tells_of_other_bits_is_what_fitting_gives(uneven, rotation):
    first = MixedLloydMaxQuantizer(2, rotation=rotation).fit(uneven, seed=3)
    other = MixedLloydMaxQuantizer(3.5, rotation=rotation)
    like = other.fit_like(first)
    assert like is not None
    assert like.same_as(other.fit(uneven, seed=3))
    assert like.spec == other.spec
    assert first.code_size < like.code_size
    assert other.fit_like(MixedLloydMaxQuantizer(2, rotation="hadamard").fit(uneven)) is None
    assert other.fit_like(first.to("cpu")) is None  # as if from a file
    assert other.fit_like(other) is None
    assert LloydMaxQuantizer(2, rotation=rotation).fit_like(first) is None


@pytest.mark.full
def test_errors_fall_as_bits_rise(uneven):
    errors = []
    for bits in (0.25, 0.5, 1, 1.5, 2, 2.5, 3, 4, 8):
        codes = MixedLloydMaxQuantizer(bits).fit(uneven).encode(uneven)
        errors.append(mse(codes.decode(), uneven))
    assert errors == sorted(errors, reverse=True)


def test_a_dimension_without_bits_is_its_mean():
    x = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
    x[:, 3] = 7.0
    codec = MixedLloydMaxQuantizer(1).fit(x)
    assert int(codec.state()["bits"][3]) == 0
    assert torch.equal(codec.encode(x).decode()[:, 3], x[:, 3])


@pytest.mark.parametrize("bits", [0, -1, 8.5, float("nan"), "2", True])
def test_no_such_bits(bits):
    with pytest.raises(GpuzipError, match="must be a number above 0 and up to 8"):
        MixedLloydMaxQuantizer(bits)


@pytest.mark.full
def test_rows_that_matter_have_more_bits(frequent, mixed):
    x, importance = frequent
    assert [part.codec.code_size for part in mixed.parts] == sorted(
        (part.codec.code_size for part in mixed.parts), reverse=True
    )
    assert bool((mixed.group.int().diff() >= 0).all())  # importance falls with the row
    assert len(mixed.parts) >= 4
    assert sum(part.data.nbytes for part in mixed.parts) <= 2 * x.numel() / 8

    def weighted(y):
        return float(((y - x).square().mean(1) * importance).sum() / importance.sum())

    equal = MixedLloydMaxQuantizer(2).fit(x).encode(x)
    assert weighted(mixed.decode()) < 0.5 * weighted(equal.decode())


def least_error(importance, gains, costs, spare):
    """The least weighted error by any rates, by a program over rows and bytes."""
    totals = torch.cat([torch.zeros(1), gains.cumsum(0)])
    prices = [0, *costs.cumsum(0).tolist()]
    best = [0.0] * (spare + 1)
    for weight in importance.tolist():
        best = [
            max(
                best[room - price] + weight * float(total)
                for total, price in zip(totals, prices, strict=True)
                if price <= room
            )
            for room in range(spare + 1)
        ]
    return best[spare]


@pytest.mark.parametrize("spare", [0, 1, 7, 20, 60, 1000])
def test_allotted_rates_are_all_but_the_best(spare):
    """Taking the steepest steps first misses the optimum by less than the step that did not fit."""
    importance = torch.rand(30, generator=torch.Generator().manual_seed(spare), dtype=torch.float64)
    gains, costs = torch.tensor([8.0, 3.0, 1.0, 0.25]), torch.tensor([1, 1, 2, 2])
    rates = allot_rows(importance, gains, costs, spare).long()
    prices = torch.cat([torch.zeros(1).long(), costs.cumsum(0)])
    totals = torch.cat([torch.zeros(1), gains.cumsum(0)]).double()
    assert int(prices[rates].sum()) <= spare
    gained = float((importance * totals[rates]).sum())
    steepest_left = (
        float((importance[:, None] * (gains / costs)).flatten().sort(descending=True).values[0]) * 2
    )
    best = least_error(importance, gains, costs, min(spare, 6 * 30))
    assert gained <= best + 1e-9
    assert gained >= best - steepest_left
    if spare >= 6 * 30:
        assert rates.tolist() == [4] * 30


def test_equal_rows_differ_by_one_step_at_most():
    rates = allot_rows(
        torch.ones(100, dtype=torch.float64), torch.tensor([4.0, 2.0, 1.0]), torch.ones(3).long(), 150
    )
    assert rates.tolist() == [2] * 50 + [1] * 50


def test_rows_of_all_parts(frequent, mixed):
    x, _ = frequent
    y = mixed.decode()
    assert y.shape == x.shape == mixed.shape
    ids = [2999, 0, 17, 17, -1, 1500]
    assert torch.equal(mixed.rows(ids), y[ids])
    assert mixed.rows([]).shape == (0, 384)
    assert mixed.nbytes == sum(part.nbytes for part in mixed.parts) + 3000
    following = MixedCodes(mixed.parts)
    order = mixed.group.long().argsort(stable=True)
    assert torch.equal(following.decode(), y[order])
    assert torch.equal(following.rows(ids), y[order][ids])
    with pytest.raises(
        IndexError,
        match=r"MixedCodes\.rows: ids must be from -3000 to 2999, as there are 3000 rows; got 0 to 3000",
    ):
        mixed.rows([0, 3000])


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_search_is_exact_over_all_parts(mixed, real_queries, metric):
    y, queries = mixed.decode().double(), real_queries[:40].double()
    scores = {"ip": queries @ y.T, "l2": -torch.cdist(queries, y).square()}
    scores["cosine"] = scores["ip"] / y.norm(dim=1) / queries.norm(dim=1)[:, None]
    values, ids = mixed.search(real_queries[:40], 10, metric)
    want = scores[metric].topk(10).values
    torch.testing.assert_close(scores[metric].gather(1, ids), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((-values if metric == "l2" else values).double(), want, rtol=1e-4, atol=1e-4)
    _, one_ids = mixed.search(real_queries[0], 10, metric)
    assert one_ids.tolist() == ids[0].tolist()


def test_search_of_some_rows(mixed, real_queries):
    mask = torch.arange(3000) % 7 == 3
    _, ids = mixed.search(real_queries[:5], 20, mask=mask)
    assert bool(mask[ids].all())
    y = mixed.decode()
    _, want = Codes(*_half(y)).search(real_queries[:5], 20, mask=mask)
    assert gpuzip.recall(ids, want) > 0.97


def _half(y):
    codes = gpuzip.HalfQuantizer().fit(y).encode(y)
    return codes.codec, codes.data


def test_equal_rows_of_different_parts_come_by_id():
    x = torch.tensor([[1.0, 1], [2, 2], [1, 1], [2, 2]])
    part = LloydMaxQuantizer(1).fit(x).encode(x[:2])
    twice = MixedCodes([part, part], torch.tensor([1, 0, 0, 1], dtype=torch.uint8))
    assert torch.equal(twice.decode(), torch.tensor([[1.0, 1], [1, 1], [2, 2], [2, 2]]))
    assert twice.search(torch.tensor([1.0, 0]), 4, "ip")[1].tolist() == [2, 3, 0, 1]


def test_quality_is_that_of_all_rows(frequent, mixed):
    quality = mixed.quality(frequent[0])
    assert quality.mse == pytest.approx(mse(mixed.decode(), frequent[0]), rel=1e-5)


def test_there_and_back(mixed, tmp_path):
    mixed.save(tmp_path / "x")
    again = gpuzip.open_mixed(tmp_path / "x", verify=True)
    assert torch.equal(again.decode(), mixed.decode())
    assert again.group is not None
    assert torch.equal(again.group, mixed.group)
    MixedCodes(mixed.parts).save(tmp_path / "x")
    assert gpuzip.open_mixed(tmp_path / "x").group is None


@pytest.mark.parametrize("grouped", [True, False])
def test_open_and_load_read_a_folder_of_mixed_codes(grouped, tmp_path):
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    codes = _two_sizes(x, grouped)
    codes.save(tmp_path / "x")
    again = gpuzip.open(tmp_path / "x", verify=True)
    assert isinstance(again, MixedCodes)
    assert torch.equal(again.decode(), codes.decode())
    assert torch.equal(gpuzip.load(tmp_path / "x"), codes.decode())
    with pytest.raises(gpuzip.QualityError, match=r"part-.*\.ezip"):
        gpuzip.open(tmp_path / "x", min_cosine=0.5)


def test_open_of_another_folder_names_its_reader(tmp_path):
    gpuzip.WordVectors.from_dict({"a": [1.0, 2.0]}).save(tmp_path / "words")
    with pytest.raises(FormatError, match=r"Open such a folder with gpuzip\.WordVectors\.load"):
        gpuzip.open(tmp_path / "words")
    with pytest.raises(IsADirectoryError):
        gpuzip.open(tmp_path)


def _two_sizes(x, grouped):
    low, high = (gpuzip.ScalarQuantizer(bits=b).fit(x).encode(x[i::2]) for i, b in enumerate((2, 8)))
    return MixedCodes([low, high], torch.arange(len(x)).remainder(2).to(torch.uint8) if grouped else None)


@pytest.mark.parametrize("grouped", [True, False])
def test_cat_of_mixed_codes_is_cat_of_their_rows(grouped):
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    mixed = _two_sizes(x, grouped)
    alone = mixed.parts[1]
    twice = MixedCodes([alone, alone], torch.tensor([0, 1] * 15, dtype=torch.uint8))
    for parts in ([mixed], [mixed, mixed], [alone, mixed], [mixed, alone, twice], [twice, twice]):
        codes = gpuzip.cat(parts)
        assert torch.equal(codes.decode(), torch.cat([part.decode() for part in parts]))
    assert len(gpuzip.cat([mixed, alone, mixed]).parts) == 2


@pytest.mark.parametrize("grouped", [True, False])
def test_some_rows_of_mixed_codes_are_mixed_codes(grouped):
    mixed = _two_sizes(torch.randn(30, 8, generator=torch.Generator().manual_seed(0)), grouped)
    for index in (7, slice(3, 20, 2), [5, -1, 5], torch.arange(30) % 3 == 0, []):
        wanted = mixed.decode()[index]
        assert torch.equal(mixed[index].decode(), wanted.view(-1, 8))
    assert torch.equal(torch.cat([row.decode() for row in mixed]), mixed.decode())


def test_cat_of_mixed_codes_that_do_not_fit_is_refused():
    x = torch.randn(30, 8, generator=torch.Generator().manual_seed(0))
    mixed, other = _two_sizes(x, True), _two_sizes(x[:, :4], True)
    with pytest.raises(GpuzipError, match="parts must have 8 columns"):
        gpuzip.cat([mixed, other])
    with pytest.raises(GpuzipError, match="parts must be Codes or MixedCodes; got Tensor"):
        gpuzip.cat([mixed, x])  # type: ignore[list-item]
    with pytest.raises(GpuzipError, match="at least one Codes must be given"):
        gpuzip.cat([])
    for take in (
        gpuzip.nn.QuantizedEmbedding.from_codes,
        gpuzip.nn.QuantizedEmbeddingBag.from_codes,
        gpuzip.to_usearch,
        lambda codes: gpuzip.to_sentence_transformers(codes, "int8"),
    ):
        with pytest.raises(gpuzip.DtypeError, match="must be Codes of one codec; got MixedCodes"):
            take(mixed)


def test_altered_folders_are_refused(mixed, tmp_path):
    mixed.save(tmp_path / "x")
    group = next((tmp_path / "x").glob("group-*"))
    kept = group.read_bytes()
    group.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(FormatError, match="was altered"):
        gpuzip.open_mixed(tmp_path / "x")
    group.unlink()
    with pytest.raises(FormatError, match="is missing"):
        gpuzip.open_mixed(tmp_path / "x")


def test_groups_must_fit_their_parts(mixed):
    for group in (mixed.group[1:], mixed.group.long(), torch.zeros_like(mixed.group)):
        with pytest.raises(GpuzipError, match="group must be"):
            MixedCodes(mixed.parts, group)
    with pytest.raises(GpuzipError, match="at least one Codes must be given"):
        MixedCodes([])
    other = LloydMaxQuantizer(1).fit(torch.ones(2, 3)).encode(torch.ones(2, 3))
    with pytest.raises(GpuzipError, match="parts must have 384 columns"):
        MixedCodes([mixed.parts[0], other])


def on_disk(codes, path: Path, x):
    if isinstance(codes, Codes):
        return codes.save(path, x).nbytes
    codes.save(path)
    return sum(file.stat().st_size for file in path.iterdir())


MORE_BUDGETS = [pytest.param(b, marks=pytest.mark.full) for b in (70_000, 123_457, "400kB", "0.5MiB", 10**7)]
BUDGETS = [100_000, *MORE_BUDGETS]


@pytest.mark.parametrize("important", [False, pytest.param(True, marks=pytest.mark.full)])
@pytest.mark.parametrize("max_bytes", BUDGETS)
def test_a_budget_is_never_exceeded(frequent, tmp_path, max_bytes, important):
    x, importance = frequent
    codes = gpuzip.compress(x, max_bytes=max_bytes, importance=importance if important else None)
    limit = parse_bytes("", "", max_bytes)
    assert codes.nbytes <= limit
    size = on_disk(codes, tmp_path / "x", x)
    assert size <= limit
    if limit < 10**6:
        assert size > (0.88 if important else 0.8) * limit  # what loses least need not be the largest


def test_a_budget_counts_the_checksums_of_many_blocks(frequent, tmp_path, monkeypatch):
    x = frequent[0]
    monkeypatch.setattr("gpuzip.storage.blocks.BLOCK_BYTES", 300)
    codes = gpuzip.compress(x, max_bytes=200_000)
    size = on_disk(codes, tmp_path / "x", x)
    assert 0.75 * 200_000 < size <= 200_000
    assert size - codes.nbytes > 1536 + 256  # which is counted for all
    with pytest.raises(GpuzipError, match=r"too small for 3000 x 384: ([0-9]+) bytes") as raised:
        gpuzip.compress(x, max_bytes=5000)
    least = int(str(raised.value).split("384: ")[1].split()[0])
    smallest = gpuzip.compress(x, max_bytes=least)
    assert on_disk(smallest, tmp_path / "y", x) <= least


@pytest.mark.parametrize(
    "importance", [None, pytest.param(torch.ones(3000), marks=pytest.mark.full)], ids=["alike", "important"]
)
def test_a_budget_that_is_too_small_says_what_is_needed(frequent, importance):
    with pytest.raises(
        GpuzipError, match=r"max_bytes=5000 is too small for 3000 x 384: ([0-9]+) bytes"
    ) as raised:
        gpuzip.compress(frequent[0], max_bytes=5000, importance=importance)
    least = int(str(raised.value).split("384: ")[1].split()[0])
    assert len(gpuzip.compress(frequent[0], max_bytes=least, importance=importance)) == 3000
    with pytest.raises(GpuzipError, match=r"bits_per_dim=0\.01 is too small"):
        gpuzip.compress(frequent[0], bits_per_dim=0.01, importance=importance)


@pytest.mark.parametrize("bits", [1, *(pytest.param(b, marks=pytest.mark.full) for b in (2, 3, 4, 8))])
def test_the_better_of_equal_and_mixed_bits(uneven, bits):
    chosen = mse(gpuzip.compress(uneven, bits_per_dim=bits).decode(), uneven)
    for codec in (LloydMaxQuantizer(bits), MixedLloydMaxQuantizer(bits)):
        assert chosen <= 1.001 * mse(codec.fit(uneven).encode(uneven).decode(), uneven)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"max_bytes": 10**6, "bits_per_dim": 1}, "one size must be given; got max_bytes and bits_per_dim"),
        ({"importance": torch.ones(3000)}, "one of max_bytes and bits_per_dim must be given"),
        ({"max_bytes": "lots"}, "max_bytes must be a number of bytes, or text such as '20MB'; got 'lots'"),
        ({"max_bytes": 0}, r"max_bytes must be .*; got 0"),
        ({"bits_per_dim": 9}, "bits_per_dim must be a number above 0 and up to 8; got 9"),
        (
            {"bits_per_dim": 1, "importance": torch.ones(2999)},
            r"importance must be \(3000,\) finite.*; got shape \(2999,\)",
        ),
        ({"bits_per_dim": 1, "importance": -torch.ones(3000)}, "of at least 0, one per row"),
        ({"bits_per_dim": 1, "importance": "much"}, "importance must be numbers"),
        (
            {"bits_per_dim": 1, "importance": torch.ones(3000), "max_bits": 0},
            "max_bits must be a whole number",
        ),
        (
            {"bits_per_dim": 1, "importance": torch.ones(3000), "m": 8},
            "m must not be given with importance",
        ),
        ({"bits_per_dim": 1, "m": 8}, "m must not be given with a size or a quality"),
    ],
)
def test_options_are_checked(frequent, options, match):
    with pytest.raises(GpuzipError, match=match):
        gpuzip.compress(frequent[0], **options)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20MB", 20_000_000),
        ("1.5 GiB", 3 * 2**29),
        ("300k", 300_000),
        (" 12 b ", 12),
        (7, 7),
        ("2mib", 2**21),
    ],
)
def test_sizes_in_words(text, size):
    assert parse_bytes("x", "max_bytes", text) == size


@pytest.mark.full
def test_memory_maps_are_read_in_blocks(frequent, tmp_path):
    import numpy as np

    x, importance = frequent[0][:400], frequent[1][:400]
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for options in ({}, {"importance": importance}):
        one = gpuzip.compress(x, bits_per_dim=2, **options)
        assert torch.equal(gpuzip.compress(mapped, bits_per_dim=2, **options).decode(), one.decode())


@pytest.mark.parametrize("d", [50, *(pytest.param(d, marks=pytest.mark.full) for d in (100, 384))])
@pytest.mark.parametrize("bits", [1, 2])
def test_bits_that_fill_up_a_byte_are_not_counted(d, bits):
    """With equal importance every row has all the bits that were asked for."""
    x = torch.randn(300, d, generator=torch.Generator().manual_seed(0))
    codes = gpuzip.compress(x, bits_per_dim=bits, importance=torch.ones(300))
    assert [part.codec.spec for part in codes.parts] == [f"LloydMax{bits}"]
    size = 300 * -(-d * bits // 8) + 20_000
    assert gpuzip.compress(x, max_bytes=size, importance=torch.ones(300)).nbytes <= size
