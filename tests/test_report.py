"""A report's numbers are those of plain loops, and its forms hold them all."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import GpuzipError, MissingDependencyError
from gpuzip.reports.choices import choices_of
from gpuzip.reports.report import Report
from gpuzip.reports.rows import ReportRow
from gpuzip.reports.selection import selected

SPECS = ["SQ8", "SQ4", "Binary", "PQ4x4"]
K = 5


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return normal(400, 16, 0)


@pytest.fixture(scope="module")
def queries() -> torch.Tensor:
    return normal(30, 16, 1)


@pytest.fixture(scope="module")
def report(x, queries) -> Report:
    return gpuzip.report(x, queries, SPECS, k=K)


def row_of(report: Report, spec: str) -> ReportRow:
    return next(row for row in report.rows if row.spec == spec)


def parts(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows that are held out, and those to fit on, by seed 0."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held = order[: len(x) // 5].sort().values
    return x[held], x[order[len(x) // 5 :].sort().values]


@pytest.mark.parametrize("spec", SPECS)
def test_quality_is_that_of_plain_loops(report, x, queries, spec):
    held_out, fitted = parts(x)
    codec = gpuzip.from_spec(spec).fit_quietly(fitted, seed=0)
    row, codes = row_of(report, spec), codec.encode(fitted)
    decoded = codec.encode(held_out).decode()
    cosines = torch.nn.functional.cosine_similarity(held_out.double(), decoded.double())
    assert row.row_cosine == pytest.approx(float(cosines.mean()), abs=1e-6)
    assert row.mse == pytest.approx(float((held_out - decoded).double().square().mean()), rel=1e-5)
    found, rescored = 0, 0
    for query in queries:
        true = torch.nn.functional.cosine_similarity(query, fitted).topk(K).indices.tolist()
        ids = torch.nn.functional.cosine_similarity(query, codes.decode()).topk(4 * K).indices.tolist()
        found += len({*true} & {*ids[:K]})
        rescored += len({*true} & {*ids})
    assert row.recall == pytest.approx(found / K / len(queries))
    assert row.rescored_recall == pytest.approx(rescored / K / len(queries))


def test_sizes_are_those_of_all_rows(report, x):
    for row in report.rows:
        codes = gpuzip.from_spec(row.spec).fit_quietly(x).encode(x)
        assert (row.code_size, row.nbytes) == (codes.codec.code_size, codes.nbytes)
        assert row.ratio == pytest.approx(codes.ratio)


def test_speeds_are_above_zero_and_rows_are_sorted(report):
    speeds = [[row.encode_speed, row.decode_speed, row.search_speed] for row in report.rows]
    assert all(0 < speed < math.inf for some in speeds for speed in some)
    sizes = [row.code_size for row in report.rows]
    assert sizes == sorted(sizes) == [2, 2, 8, 16]


def test_the_front_is_what_no_smaller_codec_beats(report):
    for row in report.rows:
        others = [other for other in report.rows if other is not row and other.code_size <= row.code_size]
        assert row.on_front == all(row.recall > other.recall for other in others)


def test_rows_of_a_gaussian_source_stay_below_the_bound(x, queries):
    """The closed form for columns of one variance: D(R) = 4^(-R/d)."""
    wide = normal(20_000, 16, 3)
    row = gpuzip.report(wide, queries, ["LloydMax2"], k=K).rows[0]
    assert row.bound_cosine == pytest.approx(math.sqrt(1 - 4 ** (-2)), abs=2e-3)
    assert row.row_cosine < row.bound_cosine


def test_the_bound_is_told_at_sizes_where_it_says_something(report):
    assert [row.code_size for row in report.bound] == [2, 8]
    assert all(row.row_cosine < 0.9995 and row.mse > 0 for row in report.bound)


@pytest.mark.full
def test_without_queries_the_held_out_rows_are_the_queries(x):
    some = gpuzip.report(x, codecs=["SQ8"], k=K)
    table = {
        row.spec: row
        for row in gpuzip.choose.table_for(  # as gpuzip.pareto measures
            "test", gpuzip._core.rows.Rows("test", x), gpuzip.choose.table_target("test", K, "cosine"), 0
        )
    }
    row, same = some.rows[0], table["SQ8"]
    assert (some.setting.queries, some.setting.has_queries) == (80, False)
    assert (row.recall, row.rescored_recall, row.row_cosine, row.mse) == (
        same.recall, same.rescored_recall, same.row_cosine, same.mse,
    )  # fmt: skip
    assert "other queries may find less" in str(some)


def test_a_sample_of_many_rows_is_read_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr("gpuzip.reports.run._FITTED", 300)
    rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(1000, 8))
    rows[:] = normal(1000, 8, 2).numpy()
    some = gpuzip.report(np.memmap(tmp_path / "rows", np.float32, "r", shape=(1000, 8)), codecs=["SQ8"])
    assert (some.setting.n, some.setting.fitted, some.setting.held_out) == (1000, 300, 200)
    assert some.setting.is_sample
    assert "fitted on 300 rows of the 1,000" in str(some)
    assert some.rows[0].nbytes == 1000 * 8 + 8 * 8


def test_progress_counts_codecs(x):
    calls: list[tuple[int, int]] = []
    gpuzip.report(x, codecs=["SQ8", "Binary"], progress=lambda done, of: calls.append((done, of)))
    assert calls == [(1, 2), (2, 2)]


def test_codecs_can_be_objects_or_one_text(x):
    some = gpuzip.report(x, codecs=[gpuzip.ScalarQuantizer(bits=8), "Binary"])
    assert [row.spec for row in some.rows] == ["Binary", "SQ8"]
    assert [row.spec for row in gpuzip.report(x, codecs="SQ4").rows] == ["SQ4"]
    default = gpuzip.ProductQuantizer()  # it has no spec: m follows from the columns
    assert selected("report", default, 400, 16, 320) == {repr(default): default}


def test_the_default_codecs_are_of_all_kinds():
    kinds = {type(codec).__name__ for codec in selected("report", None, 8000, 384, 6400).values()}
    assert kinds == {
        f"{name}Quantizer"
        for name in ("Half", "Scalar", "LloydMax", "Product", "MixedLloydMax", "RaBit", "Binary")
    }
    for n, d in ((100, 1), (100, 3), (200, 7), (10**6, 1024)):
        for codec in selected("report", None, n, d, min(n, 16_384)).values():
            assert not codec.is_fitted


WRONG: Any = 3
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"x": torch.zeros(99, 4)}, "report: x must have at least 100 rows"),
    ({"queries": torch.zeros(0, 16)}, "report: queries must be at least one row; got none"),
    ({"queries": torch.zeros(3, 4)}, "report: queries must have 16 columns"),
    ({"codecs": []}, "report: codecs must be a list of at least one spec or codec; got []"),
    ({"codecs": WRONG}, "report: codecs must be a list of at least one spec or codec; got 3"),
    (
        {"codecs": [WRONG]},
        "report: codecs must be specs such as 'PQ48x8', or codecs that are not fitted; got 3",
    ),
    ({"codecs": ["SQ8", "SQ8"]}, "report: codecs must differ; got 'SQ8' twice"),
    ({"codecs": ["nonsense"]}, "from_spec: codec must be one of"),
    ({"k": 0}, "report: k must be"),
    ({"seed": -1}, "report: seed must be"),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_refuses_what_cannot_be_reported(x, arguments, says):
    with pytest.raises(GpuzipError) as caught:
        gpuzip.report(**({"x": x, "codecs": ["SQ8"]} | arguments))
    assert str(caught.value).startswith(says)


def tried(spec: str, nbytes: int, recall: float, rescored: float, cosine: float, speed: float) -> ReportRow:
    return ReportRow(
        spec, "", nbytes, nbytes, 1.0, cosine, 0.1, 1.0, recall, rescored, 1.0, 1.0, speed, on_front=True
    )


def test_choices_are_the_smallest_that_reach_their_floor():
    rows = [
        tried("tiny", 1, 0.5, 0.991, 0.7, 50.0),
        tried("small", 2, 0.91, 1.0, 0.9, 10.0),
        tried("fast", 3, 0.95, 1.0, 0.98, 99.0),
        tried("large", 4, 0.993, 1.0, 0.999, 20.0),
    ]
    chosen = choices_of(rows, 10)
    assert [choice.spec for choice in chosen] == ["large", "small", "tiny", "large", "fast", "tiny"]
    assert all(choice.is_met for choice in chosen)
    missed = choices_of(rows[:1], 10)
    assert [choice.is_met for choice in missed] == [False, False, True, False, False, True]
    assert {choice.spec for choice in missed} == {"tiny"}


def test_a_dict_holds_all_numbers_and_is_json(report):
    told = json.loads(json.dumps(report.to_dict()))
    assert told == report.to_dict()
    assert [row["spec"] for row in told["rows"]] == [row.spec for row in report.rows]
    assert told["rows"][0]["recall"] == report.rows[0].recall
    assert set(told) == {"setting", "rows", "bound", "choices"}
    assert told["setting"]["n"] == 400


def test_text_and_markdown_have_a_line_per_codec_and_bound(report):
    lines = str(report).splitlines()
    assert lines[0] == "400 x 16 float32, 25.6 kB"
    for row in report.rows:
        (line,) = [line for line in lines if line.startswith(f"{row.spec}  ")]
        assert f"{row.nbytes:,}" in line and f"{row.recall:.3f}" in line
    table = [line for line in report.to_markdown().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(report.rows) + len(report.bound)
    assert {line.count(" | ") for line in table} == {10}


def test_markdown_keeps_its_table_whatever_a_codec_is_called(report):
    row = replace(report.rows[0], spec="a|b`c\nd")
    table = [t for t in replace(report, rows=(row,)).to_markdown().splitlines() if t.startswith("|")]
    assert table[-2].startswith("| `a\\|b c d` | ") or table[-1].startswith("| `a\\|b c d` | ")


def test_pandas_is_optional(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"Report\.to_pandas: pandas is not installed"):
        report.to_pandas()


@pytest.mark.full
def test_pandas_has_a_line_per_codec(report):
    pandas = pytest.importorskip("pandas")
    frame = report.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.index.tolist() == [row.spec for row in report.rows]
    assert frame["recall"].tolist() == [row.recall for row in report.rows]


def test_html_without_matplotlib_says_what_to_install(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = report.to_html()
    assert "<svg" not in page
    assert 'pip install "gpuzip[plot]"' in page
    assert page.count("<section") == 4


def test_html_escapes_what_callers_name(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    evil = "<script>alert('&\"')</script>"
    rows = tuple(replace(row, spec=evil, about=evil) for row in report.rows)
    choices = tuple(replace(choice, spec=evil, facts=evil) for choice in report.choices)
    setting = replace(report.setting, device=evil, dtype=evil)
    page = replace(report, rows=rows, choices=choices, setting=setting).to_html()
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#x27;&amp;&quot;&#x27;)" in page


@pytest.mark.full
def test_the_docs_have_what_is_measured_of_the_sample():
    """Cell for cell, except for speeds."""
    from examples.sample import load_sample

    sample, specs = load_sample(), ["SQ8", "HR,LloydMax4", "Binary"]
    page = (Path(__file__).parents[1] / "docs" / "guides" / "report.md").read_text(encoding="utf-8")
    told = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    measured = gpuzip.report(sample.embeddings, sample.queries, specs).to_markdown().splitlines()
    for spec in specs:
        (line,) = [line.split(" | ") for line in measured if line.startswith(f"| `{spec}` ")]
        assert [cells[:8] for cells in told if cells[0] == line[0]] == [line[:8]]


def test_an_interrupted_save_keeps_the_older_page(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = tmp_path / "new" / "report.html"
    assert report.save_html(path) == path
    assert path.read_text(encoding="utf-8") == report.to_html()

    def fails(*_: Any, **__: Any) -> int:
        raise OSError("no space left")

    path.write_text("older")
    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(OSError, match="no space left"):
        report.save_html(path)
    assert path.read_bytes() == b"older"
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
