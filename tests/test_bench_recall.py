"""What the benchmark of recall per byte counts, and the bound that it measures against."""

import math

import pytest
import torch

pytest.importorskip("faiss")
pytest.importorskip("rich")

from bench import record, tables
from bench.recall.__main__ import in_a_process, keep, main, rows
from bench.recall.bound import cosine_bound, distortion
from bench.recall.methods import SIZES, Method, methods
from bench.recall.progressive import is_met
from bench.recall.progressive import measured as measured_progressively
from bench.recall.rows import Data, measured, without_figures
from bench.recall.targets import OURS, PLAIN, TRAINED, gaps, missed
from bench.run import is_possible

D = 32


@pytest.fixture(scope="module")
def data() -> Data:
    g = torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -1, D)
    x = torch.nn.functional.normalize(torch.randn(820, D, generator=g) * spread)
    return Data.split(x[:800].contiguous(), x[800:].contiguous(), 650)


def method(side: str, recipe: str, size: int = 4) -> Method:
    return Method(side, recipe, size, recipe)


def test_equal_variances_get_equal_bits():
    """D(R) = D s^2 4^(-R / D), the closed form."""
    for bits in (0.0, 8.0, 96.0, 400.0):
        want = D * 0.25 * 4 ** (-bits / D)
        assert math.isclose(distortion(torch.full((D,), 0.25), bits), want, rel_tol=1e-9)


def test_small_variances_get_no_bits_until_the_others_are_as_small():
    variances = torch.tensor([4.0, 1 / 16, 1.0, 0.0])
    # One bit: 4 becomes 1. Two more, one for each: both 1/4. Two more: all that there is 1/16.
    for bits, want in ((1, 1 + 1 + 1 / 16), (3, 1 / 4 + 1 / 4 + 1 / 16), (5, 3 / 16), (8, 3 / 64)):
        assert math.isclose(distortion(variances, bits), want, rel_tol=1e-6)


def test_no_variance_is_coded_in_no_bits():
    assert distortion(torch.zeros(5), 0) == distortion(torch.zeros(5), 10) == 0


def test_the_bound_of_evenly_drawn_rows():
    x = torch.nn.functional.normalize(
        torch.randn(40_000, 16, generator=torch.Generator().manual_seed(1)), dim=1
    )
    for bits in (0, 16, 64):
        assert cosine_bound(x, bits) == pytest.approx(math.sqrt(1 - 4 ** (-bits / 16)), abs=0.01)


def test_a_mean_costs_no_bits():
    x = torch.zeros(10, 4)
    x[:, 1] = 1
    assert cosine_bound(x, 0) == 1.0


def test_data_is_split_without_overlap(data):
    assert len(data.trained) == 650
    assert sorted([*data.trained.tolist(), *data.unseen.tolist()]) == list(range(800))


@pytest.mark.parametrize(
    ("side", "recipe", "row_bytes", "state"),
    [
        ("gpuzip", "ProductQuantizer(m=4, nbits=4, rotation='balanced')", 2, 2 * 16 * D + 2 * D * D),
        ("gpuzip", "ScalarQuantizer(8)", D, 8 * D),
        ("FAISS", "PQ4x4np", 2, 4 * 16 * D),
        ("FAISS", "SQ8", D, 8 * D),
        ("FAISS", "RR32,RaBitQ4", None, 4 * D * D),
    ],
)
def test_a_row(data, side, recipe, row_bytes, state):
    steps: list[str] = []
    row = measured(method(side, recipe), data, steps.append)
    assert steps == ["training", "encoding", "searching"]
    assert row_bytes is None or row["row_bytes"] == row_bytes
    assert state <= row["state_bytes"] <= state + 500  # FAISS's has a header
    assert 0.1 < row["recall"] <= row["rescored_recall"] <= 1
    assert 0.6 < row["row_cosine"] <= 1
    assert row["train_seconds"] > 0 and row["encode_rows_per_second"] > 0
    assert (row["rows"], row["d"], row["trained"], row["queries"]) == (800, D, 650, 20)


def test_exact_codes_find_all_and_have_cosine_1(data):
    for side, recipe in (("gpuzip", "HalfQuantizer()"), ("FAISS", "Flat")):
        row = measured(method(side, recipe), data)
        assert row["recall"] > 0.98
        assert row["rescored_recall"] == 1
        assert row["row_cosine"] == pytest.approx(1, abs=1e-6)


def test_both_sides_agree_on_the_same_codec(data):
    ours, theirs = (
        measured(method(side, recipe), data)
        for side, recipe in (("gpuzip", "ProductQuantizer(m=8, nbits=4)"), ("FAISS", "PQ8x4np"))
    )
    assert ours["row_cosine"] == pytest.approx(theirs["row_cosine"], abs=0.01)
    assert ours["recall"] == pytest.approx(theirs["recall"], abs=0.08)


def test_faiss_scores_of_its_own_are_asked_for(data):
    """FAISS decodes RaBitQ's sign bits alone, but its estimates use all bits."""
    row = measured(method("FAISS", "RR32,RaBitQ4"), data)
    assert row["metric"] == "its own estimate"
    assert row["recall"] > 0.8


def test_every_size_has_both_sides_and_names_are_unique():
    every = list(methods())
    assert len({one.label for one in every}) == len(every)
    for size in SIZES:
        assert {one.side for one in every if one.size == size} == {"gpuzip", "FAISS"}
    assert {OURS, TRAINED, PLAIN} <= {one.recipe for one in every if one.size == 48}


def test_recipes_that_a_library_lacks_are_known():
    assert method("gpuzip", "NoSuchQuantizer(3)").why_not(D) == "name 'NoSuchQuantizer' is not defined"
    assert "m=4000 and nbits=8" in (method("gpuzip", "ResidualQuantizer(4000)").why_not(D) or "")
    assert "NoSuch3" in (method("FAISS", "NoSuch3").why_not(D) or "")
    for there in (method("gpuzip", "BinaryQuantizer()"), method("FAISS", "PQ8x4np")):
        assert there.why_not(D) is None


def test_larger_sizes_of_a_slow_method_are_not_tried(data):
    ran = []

    def run(one, data):
        ran.append(one.label)
        return (
            without_figures(one, data, "stopped") if one.form == "slow" else {"size": one.size, "recall": 1.0}
        )

    chosen = [Method("FAISS", f"{form}{size}", size, form) for form in ("slow", "fast") for size in (48, 24)]
    found = list(rows(chosen, data, run))
    assert ran == ["FAISS: slow24", "FAISS: fast24", "FAISS: fast48"]
    assert [row["note"] for row in found if row["recall"] is None] == [
        "stopped",
        "not tried: too slow at 24 bytes",
    ]


def test_a_method_that_takes_too_long_is_ended(data):
    row = in_a_process(next(iter(methods())), data, minutes=0.005)
    assert row["recall"] is None
    assert row["note"] == "stopped after 0.005 minutes, still starting"


def figures(recipe: str, side: str, size: int, recall: float, seconds: float = 1.0) -> dict:
    return {
        "size": size, "side": side, "method": recipe, "form": recipe.replace(str(size), "{B}"),
        "rows": 600, "d": D, "trained": 450, "queries": 20,
        "row_bytes": float(size), "state_bytes": 10_000, "row_cosine": 0.9, "recall": recall,
        "rescored_recall": 0.99, "metric": "cosine", "train_seconds": seconds,
        "encode_rows_per_second": 12345.6, "peak_bytes": 2_000_000, "bound": 0.95, "note": None,
    }  # fmt: skip


def text(*found: dict) -> list[dict[str, str]]:
    return [{name: "" if value is None else str(value) for name, value in row.items()} for row in found]


@pytest.mark.parametrize(
    ("recall", "seconds", "lines"),
    [(0.80, 1, []), (0.79, 1, ["recall@10 is 0.7900, OPQ48"]), (0.80, 3, ["training is 3.3 times"])],
)
def test_targets(recall, seconds, lines):
    peers = [figures(TRAINED, "FAISS", 48, 0.795, 10), figures(PLAIN, "FAISS", 48, 0.74)]
    found = missed(text(figures(OURS, "gpuzip", 48, recall, seconds), *peers))
    assert len(found) == len(lines)
    assert all(want in line for want, line in zip(lines, found, strict=True))


def test_a_margin_that_is_missed_and_targets_that_cannot_be_told():
    ours, trained = figures(OURS, "gpuzip", 48, 0.79), figures(TRAINED, "FAISS", 48, 0.7, 100)
    (line,) = missed(text(ours, trained, figures(PLAIN, "FAISS", 48, 0.75)))
    assert "0.05 above PQ48x8np's 0.7500 is needed" in line
    assert missed(text(ours, trained)) == []


def test_gaps_are_between_the_best_of_no_more_bytes():
    larger = figures("large", "FAISS", 24, 0.99) | {"row_bytes": 32.0}
    found = text(
        figures("a", "gpuzip", 24, 0.5),
        figures("b", "gpuzip", 24, 0.6),
        figures("c", "FAISS", 24, 0.55),
        larger,
    )
    assert list(gaps(found)) == ["24 bytes: b has +0.0500 recall@10 over FAISS's c, 0.5500"]


def test_rows_are_kept_in_order_replaced_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.checkout.RESULTS", tmp_path)
    slow = without_figures(
        Method("FAISS", "LSQ24x8", 24, "LSQ{B}x8"),
        Data(torch.zeros(600, D), *[torch.zeros(20)] * 3),
        "stopped",
    )
    pq = figures("PQ24x8np", "FAISS", 24, 0.5)
    for row in (figures(PLAIN, "FAISS", 48, 0.7), slow, pq, pq | {"recall": 0.625}):
        keep(row, 384)
    lines = tables.made("recall_rows")
    assert lines[0] == "600 x 32, 450 of them trained on, 20 queries:"
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")] == [
        "| 24 bytes", "| ---", "| `PQ24x8np`", "| `LSQ24x8`", "| 48 bytes", "| ---", "| `PQ48x8np`",
    ]  # fmt: skip
    assert (
        "| `PQ24x8np` | FAISS | 24 | 0.0 MB | 0.6250 | 0.9900 | 0.9000 | 0.9500 | 1.00 s | 12,346 | 2.0 MB |"
        in lines
    )
    assert any(line.startswith("| `LSQ24x8` | FAISS | stopped | -") for line in lines)
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    assert record.stamp()["commit"] in lines[-1]


def test_recall_is_shown_by_form_and_size(monkeypatch):
    rows = text(
        figures("mine48", "gpuzip", 48, 0.8) | {"row_bytes": 54.0},
        figures("mine24", "gpuzip", 24, 0.6),
        figures("PQ24x8", "FAISS", 24, 0.5),
        figures("PQ48x8", "FAISS", 48, 0.7),
        figures("LSQ24x8", "FAISS", 24, 0.0) | {"recall": None},
    )
    stamped = dict.fromkeys(record.stamp(), "1")
    rows = sorted((row | stamped for row in rows), key=lambda row: int(row["size"]))
    monkeypatch.setattr(tables, "read", lambda name: rows)
    assert tables.made("recall")[2:-2] == [
        "| recall@10 |  | 24 bytes | 48 bytes |",
        "| --- | ---: | ---: | ---: |",
        "| `mine{B}` | gpuzip | 0.600 | 0.800 (+6 B) |",
        "| `PQ{B}x8` | FAISS | 0.500 | 0.700 |",
        "| `LSQ{B}x8` | FAISS | too slow |  |",
        "| best of gpuzip over best of FAISS, in no more bytes |  | +0.100 |  |",
    ]


def test_the_best_of_each_side_and_the_rows_of_a_codec_are_shown(monkeypatch):
    rows = text(
        figures("ScalarQuantizer(8)", "gpuzip", 24, 0.6),
        figures("BinaryQuantizer()", "gpuzip", 24, 0.9) | {"row_bytes": 30.0},  # more than 24
        figures("SQ8", "FAISS", 24, 0.5),
        figures("SQ4", "FAISS", 24, 0.0) | {"recall": None},
    )
    stamped = dict.fromkeys(record.stamp(), "1")
    monkeypatch.setattr(tables, "read", lambda name: [row | stamped for row in rows])
    d = int(rows[0]["d"])
    assert tables.made("best_per_byte")[4:-2] == [
        f"| 24 | {4 * d / 24:.0f}x | `ScalarQuantizer(8)` | 0.600 | `SQ8` | 0.500 |",
        f"| {4 * d:,} | 1x | float32 | 1.000 | float32 | 1.000 |",
    ]
    assert [line.split(" | ")[0] for line in tables.made("ScalarQuantizer")[4:-2]] == [
        "| `ScalarQuantizer(8)`"
    ]


def test_the_bench_of_a_set_that_is_not_there_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GPUZIP_CACHE", str(tmp_path))
    assert not is_possible("recall")
    assert "recall is left out: it needs the large set: python -m examples.make_sample --large" in (
        capsys.readouterr().out
    )
    assert is_possible("quality")
    monkeypatch.setattr("sys.argv", ["recall"])
    assert main() == 1
    assert "make it with: python -m examples.make_sample --large" in capsys.readouterr().out


@pytest.mark.full
def test_progressive_searches_read_less_and_find_nearly_as_much(data):
    full, *others = measured_progressively(4, data)
    W = D // 8
    assert (full["search"], full["share_read"]) == ("all bits", 1)
    assert full["row_bytes"] == 4 * W + 10
    found = {row["search"]: row for row in others}
    plane, hamming = found["plane one, then 4k"], found["Hamming, then 4k"]
    rescored = 4 * 10 / 800
    assert plane["share_read"] == pytest.approx((W + 6) / full["row_bytes"] + rescored)
    assert hamming["share_read"] == pytest.approx(W / full["row_bytes"] + rescored)
    assert full["recall"] > 0.8
    assert plane["recall"] > 0.6
    recalls = [found[f"plane one, then {multiplier}k"]["recall"] for multiplier in (2, 4, 16)]
    assert recalls == sorted(recalls)
    assert recalls[-1] == pytest.approx(full["recall"], abs=0.02)


@pytest.mark.parametrize(
    ("share", "recall", "met"), [(0.33, 0.891, True), (0.34, 0.9, False), (0.1, 0.88, False)]
)
def test_the_target_of_progressive_search(share, recall, met):
    rows = [{"bits": 4, "share_read": 1.0, "recall": 0.9}, {"bits": 4, "share_read": share, "recall": recall}]
    assert is_met([{"bits": 2, "share_read": 0.1, "recall": 1.0}, *rows]) is met


def test_progressive_searches_are_shown(tmp_path, monkeypatch, data):
    monkeypatch.setattr("bench.checkout.RESULTS", tmp_path)
    record.write("recall_progressive", list(measured_progressively(2, data)))
    lines = tables.made("progressive")
    assert lines[0].startswith("| 800 rows, 20 queries at once | scanned, and read again | bytes read |")
    assert lines[2].startswith("| `RaBitQuantizer(2)`, 18 bytes | all bits | 100.0 % |")
