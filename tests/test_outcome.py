"""Outcomes: targets that hold on rows never seen, limits that hold to the byte, why a codec was chosen."""

import importlib
import math
import sys

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import Codes, GpuzipError, from_spec
from gpuzip._core.quality import HeldOut
from gpuzip._core.rows import Rows
from gpuzip.choose import by_outcome, trial
from gpuzip.choose.grid import Candidate, families
from gpuzip.search import blocks
from gpuzip.search.blocks import nearest

D = 48
GIVEN = 1500


def few_families(n, d, trained=None, limit=None):
    """A grid of which every codec can be tried."""
    return {
        "SQ": [Candidate(f"SQ{b}", d * b // 8, 8 * d) for b in range(1, 9)],
        "PCA, SQ": [Candidate(f"PCA,SQ{b}", d * b // 8, 8 * d + 2 * d * d) for b in range(1, 9)],
        "SQfp16": [Candidate("SQfp16", 2 * d, 4)],
    }


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(by_outcome, "families", few_families)


@pytest.fixture(scope="module")
def x(real):
    return real[:GIVEN, :D].contiguous()


@pytest.fixture(scope="module")
def unseen(real):
    return real[4000:4800, :D].contiguous()


@pytest.fixture(scope="module")
def reached(x):
    return gpuzip.compress(x, min_recall=0.8, return_table=True)


def held_out(codes: Codes) -> HeldOut:
    assert codes.codec.held_out is not None
    return codes.codec.held_out


def number(value: float | None) -> float:
    assert value is not None
    return value


def heavy(x):
    standard = x / x.std(0)
    scale = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(1)).mul(0.8).exp()
    return standard.sign() * standard.abs() ** 1.7 * scale


def recall_of(codes, x, queries, k=10, **options):
    truth = (torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(x).T).topk(k).indices
    return gpuzip.recall(codes.search(queries, k, **options)[1], truth)


def test_recall_is_reached_on_rows_never_seen(reached, x, unseen):
    codes, _ = reached
    assert len(codes) == GIVEN
    assert recall_of(codes, x, unseen) >= 0.8


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", ["sentences", "heavy", "uneven"])
@pytest.mark.parametrize("floor", [0.7, 0.9])
def test_recall_is_reached_whatever_the_rows(x, unseen, kind, floor):
    change = {"sentences": lambda x: x, "heavy": heavy, "uneven": lambda x: x * torch.linspace(1, 0.02, D)}[
        kind
    ]
    codes = gpuzip.compress(change(x), min_recall=floor)
    assert recall_of(codes, change(x), change(unseen)) >= floor


@pytest.mark.usefixtures("few")
def test_recall_after_rescoring_needs_fewer_bytes(x, unseen):
    codes = gpuzip.compress(x, min_recall=0.9, rescore=True)
    assert recall_of(codes, x, unseen, rescore=x) >= 0.9
    assert codes.nbytes < gpuzip.compress(x, min_recall=0.9).nbytes
    assert recall_of(codes, x, unseen) < 0.9


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_recall_by_other_metrics(x, unseen, metric):
    scaled = x * torch.linspace(0.5, 2, GIVEN)[:, None]
    codes = gpuzip.compress(scaled, min_recall=0.8, metric=metric, k=5)
    truth = nearest(Rows("", scaled).blocks(), unseen, 5, metric)
    assert gpuzip.recall(codes.search(unseen, 5, metric)[1], truth) >= 0.8


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("floor", [0.9, 0.98])
def test_cosine_is_reached_on_rows_never_seen(x, unseen, floor):
    codes = gpuzip.compress(x, min_cosine=floor)
    assert held_out(codes).recall is None
    cosine = torch.cosine_similarity(codes.codec.encode(unseen).decode(), unseen)
    assert float(cosine.mean()) >= floor


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "target", [{"min_recall": 0.85}, {"min_cosine": 0.97}, {"min_recall": 0.6, "min_cosine": 0.99}]
)
def test_none_that_is_smaller_reaches_it(x, target):
    codes, table = gpuzip.compress(x, **target, return_table=True)
    every = gpuzip.choose.Trials("t", Rows("t", x), gpuzip.choose.table_target("t", 10, "cosine"), 0)
    enough = []
    for name, family in few_families(GIVEN, D).items():
        for candidate in family:
            row = every.of(candidate, name)
            recall, cosine = target.get("min_recall", 0), target.get("min_cosine", 0)
            if row.sure_recall >= recall and row.sure_cosine >= cosine:
                enough.append(row.nbytes)
    assert codes.nbytes == min(enough)
    assert len(table) < 17


def test_nothing_that_is_held_out_is_learned(reached, x):
    codes, _ = reached
    order = torch.randperm(GIVEN, generator=torch.Generator().manual_seed(0))
    others = order[GIVEN // 5 :].sort().values
    assert codes.codec.held_out.rows == GIVEN // 5
    assert from_spec(codes.codec.spec).fit(x[others]).same_as(codes.codec)


def test_what_is_held_out_is_not_found(x):
    target = gpuzip.choose.table_target("t", 10, "cosine")
    trials = gpuzip.choose.Trials("t", Rows("t", x), target, 0)
    row = trials.of(Candidate("SQfp16", 2 * D, 4), "SQfp16")
    assert number(row.recall) > 0.99
    order = torch.randperm(GIVEN, generator=torch.Generator().manual_seed(0))
    held, others = (part.sort().values for part in order.split([GIVEN // 5, GIVEN - GIVEN // 5]))
    codes = from_spec("SQ4").fit(x[others]).encode(x[others])
    want = recall_of(codes, x[others], x[held])
    assert trials.of(Candidate("SQ4", D // 2, 8 * D), "SQ").recall == pytest.approx(want, abs=1e-3)
    rescored = recall_of(codes, x[others], x[held], rescore=x[others])
    assert trials.of(Candidate("SQ4", D // 2, 8 * D), "SQ").rescored_recall == pytest.approx(
        rescored, abs=1e-3
    )


def test_a_likely_recall_is_below_the_mean_and_never_all():
    assert trial._sure(torch.ones(1000).double()) == pytest.approx(1 - 1 / 1001 - 1.645 / 1001, abs=1e-5)
    drawn = torch.rand(2000, generator=torch.Generator().manual_seed(0)).double()
    assert trial._sure(drawn) == pytest.approx(float(drawn.mean()) - 1.645 * 0.2887 / 2000**0.5, abs=1e-3)
    assert trial._sure(drawn[:20]) < trial._sure(drawn)


def test_what_was_chosen_and_why(reached):
    codes, table = reached
    held_out = codes.codec.held_out
    row = next(row for row in table if row.spec == codes.codec.spec)
    assert codes.why.startswith(
        f"{codes.codec.spec} is the smallest that is sure enough of {len(table)} codecs"
    )
    assert f"tried for min_recall=0.8: {row.code_size} bytes per row, {codes.nbytes} in all" in codes.why
    assert " The next smaller is " in codes.why
    assert (held_out.recall, held_out.k, held_out.metric) == (row.recall, 10, "cosine")
    assert row.sure_recall >= 0.8
    assert row.nbytes == codes.nbytes
    assert row.ratio == pytest.approx(codes.ratio)


def test_the_measure_is_in_the_file(reached, x, tmp_path):
    codes, _ = reached
    info = codes.save(tmp_path / "x.ezip", x)
    assert info.held_out.recall == pytest.approx(codes.codec.held_out.recall, rel=1e-5)
    assert "recall@10 0.8" in str(info)
    assert gpuzip.open(tmp_path / "x.ezip").codec.drift(x).verdict == "stable"
    assert gpuzip.open(tmp_path / "x.ezip").codec.drift(2 * x).verdict == "drifted"


def test_a_table_is_text_and_arrow(reached):
    _, table = reached
    heads, *lines = str(table).split("\n")
    assert heads.split() == [
        *(
            "codec",
            "bytes",
            "per",
            "row",
            "bytes",
            "smaller",
            "cosine",
            "recall",
            "rescored",
            "seconds",
            "front",
        )
    ]
    assert [line.split()[0] for line in lines] == [row.spec for row in table]
    assert [row.nbytes for row in table] == sorted(row.nbytes for row in table)
    front = [row for row in table if row.on_front]
    assert front[0] is table[0]
    assert [row.sure_recall for row in front] == sorted({row.sure_recall for row in front})
    for row in table:
        better = [
            other for other in table if other.nbytes < row.nbytes and other.sure_recall >= row.sure_recall
        ]
        assert row.on_front != bool(better) or not better
    pytest.importorskip("pyarrow")
    arrow = table.to_arrow()
    assert arrow.num_rows == len(table)
    assert arrow["spec"].to_pylist() == [row.spec for row in table]
    assert "codec" not in arrow.column_names


@pytest.mark.usefixtures("few")
def test_the_same_seed_gives_the_same_bytes(x):
    one, two = (gpuzip.compress(x, min_recall=0.8, seed=3) for _ in range(2))
    assert torch.equal(one.data, two.data)
    assert one.codec.same_as(two.codec)
    assert one.codec.held_out == two.codec.held_out


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_types_and_arrays(x, dtype, tmp_path):
    codes = gpuzip.compress(x.to(dtype), min_cosine=0.97)
    assert codes.dtype == dtype
    assert codes.decode().dtype == dtype
    np.save(tmp_path / "x.npy", x.to(dtype).numpy())
    mapped = gpuzip.compress(np.load(tmp_path / "x.npy", mmap_mode="r"), min_cosine=0.97)
    assert torch.equal(mapped.data, codes.data)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("limit", [30_000, "60kB"])
@pytest.mark.parametrize("for_", [None, "search"])
def test_limits_hold_for_the_file(x, tmp_path, limit, for_):
    codes, table = gpuzip.compress(x, max_bytes=limit, for_=for_, return_table=True)
    size = codes.save(tmp_path / "x.ezip", x).nbytes
    most = 60_000 if limit == "60kB" else limit
    assert 0.6 * most < size <= most
    fits = [row for row in table if row.nbytes + 2048 <= most]
    chosen = next(row for row in table if row.spec == codes.codec.spec)
    assert chosen in fits
    if for_ == "search":
        assert chosen.sure_recall == max(number(row.sure_recall) for row in fits)
        assert codes.why is not None
        assert codes.why.startswith(f"{chosen.spec} loses least of {len(table)} codecs tried for max_bytes=")
    else:
        assert chosen.mse == min(row.mse for row in fits)
        assert chosen.recall is None


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("size", [{"max_bytes": 30_000}, {"ratio": 12}, {"bits_per_dim": 1}])
def test_storage_takes_the_archive_within_a_size(x, tmp_path, size):
    archive, table = gpuzip.compress(x, **size, for_="storage", return_table=True)
    assert isinstance(archive, gpuzip.Archive)
    saved = archive.save(tmp_path / "x.ezip", x)
    most = {"max_bytes": 30_000, "ratio": x.nbytes // 12, "bits_per_dim": x.numel() // 8 + 1536}
    assert 0.9 * most[next(iter(size))] < saved.nbytes <= most[next(iter(size))]
    mine = next(row for row in table if row.family == "transform")
    assert mine.mse == min(row.mse for row in table)
    assert saved.quality is not None
    assert abs(saved.quality.row_cosine - mine.row_cosine) < 0.01
    assert archive.why is not None
    assert archive.why.startswith("TransformCoder(")


@pytest.mark.usefixtures("few")
def test_storage_takes_the_smallest_file_that_keeps_a_cosine(x):
    archive, table = gpuzip.compress(x, min_cosine=0.95, for_="storage", return_table=True)
    found = archive.quality(x)
    assert found is not None
    assert found.row_cosine >= 0.95
    codes = gpuzip.compress(x, min_cosine=0.95)
    assert archive.nbytes < codes.nbytes
    assert archive.nbytes == min(row.nbytes for row in table if row.sure_cosine >= 0.95)


def test_storage_of_too_much_in_too_little_is_refused(x):
    with pytest.raises(gpuzip.QualityError, match=r"cannot be reached together\. An archive"):
        gpuzip.compress(x, min_cosine=0.99, max_bytes=9000, for_="storage")


def test_storage_of_few_rows(real):
    archive = gpuzip.compress(real[:20], min_cosine=0.9, for_="storage")
    assert isinstance(archive, gpuzip.Archive)
    assert archive.shape == (20, real.shape[1])


@pytest.mark.usefixtures("few")
def test_other_names_of_a_size(x, tmp_path):
    for ratio in (6, 20.5):
        size = gpuzip.compress(x, ratio=ratio).save(tmp_path / "x.ezip").nbytes
        assert x.nbytes / size >= ratio
    for bits in (1, 2.6):
        codes = gpuzip.compress(x, bits_per_dim=bits)
        assert codes.codec.code_size * 8 <= bits * D
        assert codes.codec.nbytes <= max(GIVEN * D * bits / 80, 16 * D + 2048)


@pytest.mark.usefixtures("few")
def test_a_size_and_a_floor(x):
    alone = gpuzip.compress(x, min_recall=0.8)
    most = alone.nbytes + 2048
    assert torch.equal(gpuzip.compress(x, min_recall=0.8, max_bytes=most).data, alone.data)
    with pytest.raises(GpuzipError) as refused:
        gpuzip.compress(x, min_recall=0.8, max_bytes=most - 1)
    text = str(refused.value)
    assert text.startswith(f"compress: max_bytes={most - 1}, min_recall=0.8 cannot be reached together. ")
    assert f"{alone.codec.spec} of {alone.codec.code_size} bytes per row, {alone.nbytes} in all" in text
    assert "; the best within the size is " in text
    with pytest.raises(GpuzipError, match="; no codec is within the size"):
        gpuzip.compress(x, min_recall=0.8, max_bytes=2100)


@pytest.mark.usefixtures("few")
def test_a_floor_that_is_too_high_names_the_nearest(x):
    with pytest.raises(
        GpuzipError, match=r"min_recall=0\.9999 cannot be reached\. The nearest is SQfp16 of 96 bytes"
    ):
        gpuzip.compress(x, min_recall=0.9999)
    with pytest.raises(
        GpuzipError, match=r"min_recall=0\.9, bits_per_dim=1|bits_per_dim=1, min_recall=0\.9 cannot"
    ):
        gpuzip.compress(x, min_recall=0.9, bits_per_dim=1)


def test_searches_among_all_rows_have_the_last_word(x, monkeypatch, few):
    """With few rows to train and to search among, recall looks better than it is among all of them."""
    monkeypatch.setattr(trial, "_TRAINED", 250)
    rounds = []
    among_all = trial.Trials.among_all

    def noted(*args):
        rounds.append(among_all(*args))
        return rounds[-1]

    monkeypatch.setattr(trial.Trials, "among_all", noted)
    codes = gpuzip.compress(x, min_recall=0.885)
    assert len(rounds) > 1
    assert number(rounds[0].sure_recall) < 0.885 <= number(rounds[-1].sure_recall)
    assert held_out(codes).recall == rounds[-1].recall
    monkeypatch.setattr(by_outcome, "_ROUNDS", 1)
    with pytest.raises(GpuzipError, match=r"cannot be reached among all 1500 rows\. The nearest is"):
        gpuzip.compress(x, min_recall=0.885)


def test_the_former_name_of_the_package_still_works_and_says_what_to_write():
    sys.modules.pop("gpuzip.outcome", None)
    with pytest.warns(DeprecationWarning, match=r"Write: from gpuzip\.choose import"):
        outcome = importlib.import_module("gpuzip.outcome")
    assert outcome.Table is gpuzip.choose.Table


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_true_neighbours(x, metric, monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK", 100)
    rows, queries = x[:990] * torch.linspace(0.5, 2, 990)[:, None], x[1000:1020]
    mask = torch.arange(990) % 3 > 0
    scores = {"ip": queries @ rows.T, "l2": -torch.cdist(queries, rows).square()}
    scores["cosine"] = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(rows).T
    for allowed in (None, mask):
        want = scores[metric] if allowed is None else scores[metric].masked_fill(~allowed, -math.inf)
        found = nearest(Rows("", rows).blocks(), queries, 7, metric, allowed)
        torch.testing.assert_close(scores[metric].gather(1, found), want.topk(7).values)


@pytest.mark.parametrize(("n", "d"), [(40_000, 384), (700, 24), (100, 1), (300, 7)])
def test_the_grid_names_codecs_of_rising_sizes(n, d):
    for name, family in families(n, d).items():
        sizes = [candidate.code_size for candidate in family]
        assert sizes == sorted(sizes), name
        for candidate in family:
            assert from_spec(candidate.spec).spec == candidate.spec


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:ProductQuantizer.fit")
def test_planned_bytes_are_those_it_takes(x):
    for name, family in families(GIVEN, D).items():
        for candidate in {family[0], family[len(family) // 2], family[-1]}:
            codec = from_spec(candidate.spec).fit(x[: 1 << 11])
            assert codec.code_size <= candidate.code_size, name
            assert codec.nbytes <= candidate.state, name


def test_pareto(x, monkeypatch, few):
    table = gpuzip.pareto(x, k=5)
    assert {row.family for row in table} == {*few_families(GIVEN, D), "transform"}
    assert sum(row.family == "transform" for row in table) == 6
    assert max(number(row.recall) for row in table) > 0.99
    assert all(number(row.rescored_recall) >= number(row.recall) for row in table)
    assert min(row.nbytes for row in table) == table[0].nbytes


def test_few_rows_have_only_limits(real):
    codes = gpuzip.compress(real[:40], bits_per_dim=2)
    assert isinstance(codes, Codes)
    assert codes.codec.held_out is None
    for target in ({"min_cosine": 0.9}, {"min_recall": 0.9}, {"max_bytes": 9999, "for_": "search"}):
        with pytest.raises(GpuzipError, match=r"x must have at least 100 rows.*; got 99"):
            gpuzip.compress(real[:99], **target)
    with pytest.raises(GpuzipError, match="pareto: x must have at least 100 rows"):
        gpuzip.pareto(real[:9])


@pytest.mark.usefixtures("few")
def test_k_is_clamped(real):
    codes = gpuzip.compress(real[:110, :D].contiguous(), min_recall=0.5, k=1000)
    assert held_out(codes).k == 60


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"for_": "search"}, "max_bytes, bits_per_dim, ratio, min_cosine or min_recall must be given"),
        ({"return_table": True}, "max_bytes.* or min_recall must be given"),
        ({"rescore": True}, "max_bytes.* or min_recall must be given"),
        ({"max_bytes": 10**6, "ratio": 3}, "one size must be given; got max_bytes and ratio"),
        ({"ratio": 0}, "ratio must be a number above 0; got 0"),
        ({"ratio": "32"}, "ratio must be a number above 0; got '32'"),
        ({"min_recall": 1.5}, "min_recall must be a number above 0 and up to 1; got 1.5"),
        ({"min_recall": float("nan")}, "min_recall must be a number above 0 and up to 1; got nan"),
        ({"min_cosine": -1}, "min_cosine must be a number above 0 and up to 1; got -1"),
        ({"min_cosine": True}, r"min_cosine must be .*; got True"),
        ({"min_recall": 0.9, "for_": "storage"}, "must not be given with for_='storage'"),
        ({"ratio": 9, "for_": "speed"}, "for_ must be 'search' or 'storage'; got 'speed'"),
        ({"min_recall": 0.9, "rescore": "x"}, "rescore must be True or False; got 'x'"),
        ({"min_recall": 0.9, "metric": "hamming"}, r"metric must be one of l2, ip, cosine.*; got 'hamming'"),
        ({"min_recall": 0.9, "k": 0}, r"k must be a whole number of at least 1.*; got 0"),
        ({"min_recall": 0.9, "seed": -1}, r"seed must be .*; got -1"),
        ({"min_recall": 0.9, "m": 8}, "m must not be given with a size or a quality"),
        ({"m": 4, "nbits": 2, "metric": "l2", "k": 3}, "k, metric must be given with min_recall, rescore or"),
        ({"min_cosine": 0.9, "k": 3}, "k must be given with min_recall, rescore or for_='search'"),
        ({"max_bytes": 9999, "for_": "storage", "k": 3}, "k must be given with min_recall"),
        ({"max_bytes": 9999, "max_bits": 4}, "max_bits must be given with importance"),
        (
            {"min_recall": 0.9, "importance": torch.ones(GIVEN)},
            "must not be given with importance, which takes a size",
        ),
        ({"max_bytes": 3000, "for_": "search"}, r"max_bytes=3000 is too small for 1500 x 48: \d+ bytes"),
        ({"bits_per_dim": 0.01, "min_cosine": 0.5}, "bits_per_dim=0.01, min_cosine=0.5 is too small for"),
    ],
)
def test_targets_are_checked(x, options, match):
    with pytest.raises(GpuzipError, match=match):
        gpuzip.compress(x, **options)


def test_bad_rows(x):
    for bad, match in ((x[0], "must be 2-D"), (x * math.nan, "NaN or inf"), (x.long(), "got int64")):
        with pytest.raises(GpuzipError, match=match):
            gpuzip.compress(bad, min_recall=0.9)
        with pytest.raises(GpuzipError, match=match):
            gpuzip.pareto(bad)


def shorter(rows: torch.Tensor, seed: int) -> torch.Tensor:
    """Queries of another kind than the rows: a part of their columns says little."""
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
    return rows + 0.9 * noise * rows.std()


@pytest.mark.usefixtures("few")
def test_recall_for_given_queries_is_reached_on_others_of_their_kind(x, unseen):
    given, others = shorter(unseen[:250], 1), shorter(unseen[250:], 2)
    codes = gpuzip.compress(x, min_recall=0.8, queries=given)
    assert recall_of(codes, x, others) >= 0.795
    assert held_out(codes).queries == 125
    assert codes.why is not None and "for the queries given" in codes.why
    assert "for 125 queries" in str(held_out(codes))


@pytest.mark.usefixtures("few")
def test_without_queries_it_says_whose_recall_it_is(x, tmp_path):
    codes = gpuzip.compress(x, min_recall=0.8)
    assert codes.why is not None and "for queries like the rows" in codes.why
    assert held_out(codes).queries is None
    codes.save(tmp_path / "x.ezip")
    assert "by cosine on 300 rows, for queries like the rows" in str(gpuzip.info(tmp_path / "x.ezip"))


@pytest.mark.usefixtures("few")
def test_the_queries_that_judge_do_not_choose(x, unseen):
    """Only the half that chooses is seen before a codec is chosen."""
    trials = gpuzip.choose.Trials(
        "t", Rows("t", x), gpuzip.choose.table_target("t", 10, "cosine"), 0, unseen[:99]
    )
    assert trials._judges is not None
    both = torch.cat([trials._queries, trials._judges])
    assert torch.equal(both.sort(0).values, unseen[:99].sort(0).values)
    assert len(trials._judges) == 49 and trials.has_queries and not trials.sees_all
    table = gpuzip.pareto(x, queries=unseen[:200])
    assert all(row.recall is not None for row in table)


def test_queries_that_cannot_judge_are_refused(x):
    with pytest.raises(GpuzipError, match=r"queries must be at least 50 rows that are not zero.*got 49"):
        gpuzip.compress(x, min_recall=0.8, queries=torch.cat([x[:49], torch.zeros(9, D)]))
    with pytest.raises(GpuzipError, match="queries must have 48 columns"):
        gpuzip.compress(x, min_recall=0.8, queries=x[:99, :7])
    with pytest.raises(GpuzipError, match="queries must be given with min_recall"):
        gpuzip.compress(x, min_cosine=0.8, queries=x[:99])


def test_all_of_a_recall_is_refused_before_anything_is_tried(x, monkeypatch):
    monkeypatch.setattr(trial.Trials, "__init__", None)
    with pytest.raises(GpuzipError, match="min_recall must be below 1"):
        gpuzip.compress(x, min_recall=1.0)


def test_a_bound_stands_beside_the_number_that_it_bounds(x, few):
    for rescore in (False, True):
        codes, table = gpuzip.compress(x, min_recall=0.8, rescore=rescore, return_table=True)
        (chosen,) = (row for row in table if row.spec == codes.codec.spec)
        number = chosen.rescored_recall if rescore else chosen.recall
        assert f"{number:.4f} (likely {chosen.sure_recall:.4f} or more)" in str(codes.why)


@pytest.mark.parametrize("k", [1, 3, 40, 4101])
def test_nearest_rows_of_blocks_are_those_of_all_rows(k):
    """Blocks shorter than k and longer than one product; equal scores, of which the lower id comes first."""
    rows = torch.randint(-2, 3, (4101, 3), generator=torch.Generator().manual_seed(0)).float()
    queries = torch.tensor([[1.0, 2, 0], [0, -1, 1]])
    mask = torch.arange(4101) % 3 > 0
    blocks = [(0, rows[:2]), (2, rows[2:5]), (5, rows[5:])]
    for allowed in (None, mask):
        scores = queries @ rows.T
        if allowed is not None:
            scores[:, ~allowed] = float("-inf")
        want = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
        found = nearest(blocks, queries, k, "ip", allowed)
        sure = scores.gather(1, want) > float("-inf")
        assert torch.equal(found[sure], want[sure])
