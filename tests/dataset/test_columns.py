"""Columns beside the rows: they come back as they were, and filters on them say which rows may be found."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gpuzip
from tests.dataset.plain import half, rows_of

pa = pytest.importorskip("pyarrow")
pc = pytest.importorskip("pyarrow.compute")


def table(start: int, stop: int) -> Any:
    return pa.table(
        {
            "year": pa.array([None if n % 5 == 0 else 2000 + n for n in range(start, stop)], pa.int32()),
            "text": [f"text {n}" for n in range(start, stop)],
            "tags": [["even"] if n % 2 == 0 else ["odd", str(n)] for n in range(start, stop)],
        }
    )


def filled(path: Path) -> gpuzip.Dataset:
    data = gpuzip.Dataset.create(path, half())
    for start in (0, 10, 20):
        data.append(rows_of(10, start), columns=table(start, start + 10))
    return data


def texts(found: Any) -> list[str]:
    return [str(text) for text in found["text"].to_pylist()]


def test_columns_come_back_with_their_rows(tmp_path: Path):
    data = filled(tmp_path)
    assert data.columns().select(["year", "text", "tags"]).to_pylist() == table(0, 30).to_pylist()
    assert texts(data.columns([25, 3, 3, 11])) == ["text 25", "text 3", "text 3", "text 11"]
    assert data.columns([]).num_rows == 0
    assert list(data.info().columns) == ["tags", "text", "year"]
    assert data.info().columns["year"] == "int32"


def test_columns_follow_their_rows(tmp_path: Path):
    data = filled(tmp_path)
    data.remove(range(0, 30, 3))
    data.update([28, 1], rows_of(2, 7))
    want = [n for n in range(30) if n % 3 and n not in (1, 28)] + [28, 1]
    assert data.ids.tolist() == want
    assert texts(data.columns()) == [f"text {n}" for n in want]
    data.update([4], rows_of(1, 8), {"year": [1], "text": ["new"], "tags": [["x"]]})
    data.compact(removed=0)
    assert texts(data.columns([4, 28, 5])) == ["new", "text 28", "text 5"]
    assert texts(gpuzip.Dataset.open(tmp_path).columns()) == [f"text {n}" for n in want if n != 4] + ["new"]
    data.verify()


@pytest.mark.parametrize(
    ("expression", "accepts"),
    [
        (pc.field("year") > 2012, lambda n: n % 5 != 0 and n > 12),
        (pc.field("text") == "text 7", lambda n: n == 7),
        (pc.field("year").is_null(), lambda n: n % 5 == 0),
        ((pc.field("year") < 2025) & pc.field("text").isin(["text 3", "text 29"]), lambda n: n == 3),
    ],
    ids=["number", "text", "null", "both"],
)
def test_an_expression_says_which_rows_may_be_found(tmp_path: Path, expression: Any, accepts: Any):
    data = filled(tmp_path)
    data.remove([13, 14])
    queries = rows_of(2, 9)
    want = data.search(queries, 30, "l2", filter=[n for n in data.ids.tolist() if accepts(n)])
    found = data.search(queries, 30, "l2", filter=expression)
    assert torch.equal(found.ids, want.ids)
    assert torch.equal(found.values, want.values)


def test_columns_are_those_of_the_first_append(tmp_path: Path):
    data = filled(tmp_path)
    for columns, match in (
        (None, "got none"),
        ({"year": [1]}, "as of earlier rows"),
        ({"year": [2**40], "text": ["b"], "tags": [["c"]]}, "as of earlier rows"),
        (table(0, 1).set_column(0, "year", [["a"]]), "as of earlier rows"),
        ({"year": [1, 2], "text": ["a", "b"], "tags": [[], []]}, "1 rows"),
        ({"year": [1], "text": [1, 2]}, "columns must be"),
        ([1, 2], "columns must be a pyarrow Table"),
    ):
        with pytest.raises(gpuzip.GpuzipError, match=match):
            data.append(rows_of(1, 0), columns=columns)
    batch = table(30, 31).to_batches()[0].select(["tags", "year", "text"])  # another order of columns
    data.append(rows_of(1, 0), columns=batch)
    data.append(rows_of(1, 0), columns={"year": [None], "text": ["text 31"], "tags": [[]]})
    data.append(rows_of(1, 0), columns=table(30, 31).set_column(0, "year", [pa.nulls(1)]))
    assert data.columns([30, 31, 32])["year"].to_pylist() == [None] * 3
    assert texts(data.columns([31, 30])) == ["text 31", "text 30"]
    bare = gpuzip.Dataset.create(tmp_path / "bare", half())
    assert bare.columns() is None
    bare.append(rows_of(1, 0))
    with pytest.raises(gpuzip.GpuzipError, match="as of earlier rows"):
        bare.append(rows_of(1, 0), columns={"a": [1]})


def test_a_wrong_expression_is_an_error(tmp_path: Path):
    data = filled(tmp_path)
    for wrong in (pc.field("nothing") > 3, pc.field("text") > 3, pc.field("year")):
        with pytest.raises(gpuzip.GpuzipError, match="filter must"):
            data.search(rows_of(1, 0), filter=wrong)


def test_types_that_parquet_changes_and_a_dataset_that_is_empty_again(tmp_path: Path):
    data = gpuzip.Dataset.create(tmp_path, half())
    moments = pa.table(
        {"at": pa.array([1, 2], pa.timestamp("s")), "kind": pa.array(["a", "b"]).dictionary_encode()}
    )
    for _ in range(2):
        data.append(rows_of(2, 0), columns=moments)
    data.remove([1])
    data.compact(removed=0)
    data.verify()
    assert [row["at"].second for row in data.columns().to_pylist()] == [1, 1, 2]
    assert data.columns()["kind"].to_pylist() == ["a", "a", "b"]
    data.remove([0, 2, 3])
    assert data.columns() is None
    data.append(rows_of(1, 0), columns={"other": ["columns"]})
    assert data.columns().to_pylist() == [{"other": "columns"}]


def test_a_dataset_with_columns_is_searched_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = filled(tmp_path)
    found = data.search(rows_of(1, 0), 3).ids
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    again = gpuzip.Dataset.open(tmp_path)
    assert torch.equal(again.search(rows_of(1, 0), 3).ids, found)
    for call in (
        lambda: again.append(rows_of(1, 0)),
        lambda: again.update([1], rows_of(1, 0)),
        lambda: again.columns([1]),
        lambda: again.search(rows_of(1, 0), filter=pc.field("year") > 1),
    ):
        with pytest.raises(gpuzip.MissingDependencyError, match=r"gpuzip\[arrow\]"):
            call()
    again.remove([1])
    assert len(again) == 29
