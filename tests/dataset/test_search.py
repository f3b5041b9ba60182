"""A search over shards is the search of one Codes of all live rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from tests.dataset.plain import half, rows_of

CODECS: list[Any] = [
    gpuzip.ScalarQuantizer(bits=8),
    gpuzip.ProductQuantizer(m=4),
    gpuzip.HalfQuantizer(),
    pytest.param(gpuzip.BinaryQuantizer(), marks=pytest.mark.full),
    pytest.param(gpuzip.RaBitQuantizer(bits=2), marks=pytest.mark.full),
    pytest.param(gpuzip.ResidualQuantizer(m=4), marks=pytest.mark.full),
]


def worn(path: Path, codec: Any, n: int = 900, d: int = 16) -> tuple[gpuzip.Dataset, torch.Tensor, Any]:
    """A dataset of three shards of 300 rows of which some are removed, its source rows, and one Codes."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(2))
    codec = codec.fit_quietly(x)
    data = gpuzip.Dataset.create(path, codec)
    for part in x.split(n // 3):
        data.append(part)
    data.remove(range(0, n // 2, 5))
    x = x[data.ids]
    return data, x, codec.encode(x)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
def test_values_and_rows_are_those_of_one_codes(tmp_path: Path, codec: Any):
    data, _, codes = worn(tmp_path, codec)
    for count in (1, 40):
        queries = torch.randn(count, 16, generator=torch.Generator().manual_seed(count))
        for metric in codes.codec.metrics:
            for k in (1, 10, 2000):
                values, ids = data.search(queries, k, metric)
                want, rows = codes.search(queries, k, metric)
                assert torch.equal(values, want)
                assert torch.equal(ids, data.ids[rows])


def test_one_query_gives_one_row_of_answers(tmp_path: Path):
    data, x, codes = worn(tmp_path, gpuzip.ProductQuantizer(m=4))
    values, ids = data.search(x[3], 4)
    want = codes.search(x[3], 4)
    assert torch.equal(values, want.values)
    assert torch.equal(ids, data.ids[want.ids])
    lims, _, near = data.search(x[3], metric="l2", radius=2.0)
    assert lims.tolist() == [0, len(near)]


def test_among_equal_scores_the_row_that_was_appended_first_comes_first(tmp_path: Path):
    data = gpuzip.Dataset.create(tmp_path, half(), ids="int64")
    for ids in ([5, 4], [9, 1], [7]):
        data.append(rows_of(1, 0).repeat(len(ids), 1), ids)
    assert data.search(rows_of(1, 0), 5, "l2").ids.tolist() == [[5, 4, 9, 1, 7]]
    data.remove([4])
    assert data.search(rows_of(1, 0), 3, "cosine").ids.tolist() == [[5, 9, 1]]


def test_masks_and_ids_say_which_rows_may_be_found(tmp_path: Path):
    data, x, codes = worn(tmp_path, gpuzip.ProductQuantizer(m=4))
    mask = torch.rand(len(x), generator=torch.Generator().manual_seed(0)) < 0.1
    want = codes.search(x[:5], 8, "ip", mask)
    chosen = data.ids[mask]
    for how in (
        {"mask": mask},
        {"filter": mask.numpy()},
        {"filter": mask.tolist()},
        {"filter": chosen.tolist()},
        {"filter": chosen.flip(0), "mask": torch.ones_like(mask)},
    ):
        values, ids = data.search(x[:5], 8, "ip", **how)
        assert torch.equal(values, want.values)
        assert torch.equal(ids, data.ids[want.ids])
    assert data.search(x[:5], 8, filter=[]).ids.shape == (5, 0)
    assert data.search(x[:5], 8, filter=chosen[:3]).ids.shape == (5, 3)
    pc = pytest.importorskip("pyarrow.compute")
    with pytest.raises(gpuzip.GpuzipError, match="without columns"):
        data.search(x[:5], 8, filter=pc.field("a") > 3)


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_a_radius_finds_what_a_search_for_all_rows_finds_within_it(
    tmp_path: Path, metric: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gpuzip.dataset.ranges._AT_ONCE", 512)  # many rounds of few queries
    data, x, codes = worn(tmp_path, gpuzip.ProductQuantizer(m=4))
    queries = x[:12]
    values, rows = codes.search(queries, len(x), metric)
    for at in (0, 5, 200, 700):
        radius = float(values[0, at])  # a row at the radius itself is not among them
        inside = values < radius if metric == "l2" else values > radius
        lims, near, ids = data.search(queries, metric=metric, radius=radius)
        assert lims.tolist() == [0, *inside.sum(1).cumsum(0).tolist()]
        assert torch.equal(near, values[inside])
        assert torch.equal(ids, data.ids[rows[inside]])
    lims, near, ids = data.search(queries, metric=metric, radius=1e30 if metric == "l2" else -1e30)
    assert len(ids) == 12 * len(x)
    assert data.search(queries, metric=metric, radius=0.5, filter=[]).lims.tolist() == [0] * 13


def test_a_radius_is_that_of_faiss(tmp_path: Path):
    faiss = pytest.importorskip("faiss")
    x = rows_of(200, 5)
    data = gpuzip.Dataset.create(tmp_path, half())
    data.append(x[:90])
    data.append(x[90:])
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x.numpy())
    lims, distances, ids = index.range_search(x[:7].numpy(), 12.0)
    found = data.search(x[:7], metric="l2", radius=12.0)
    assert found.lims.tolist() == lims.tolist()
    for a, b in zip(lims[:-1].astype(int), lims[1:].astype(int), strict=True):
        order = np.lexsort((ids[a:b], distances[a:b]))
        assert found.ids[a:b].tolist() == ids[a:b][order].tolist()
        assert found.values[a:b].tolist() == distances[a:b][order].tolist()


def test_rescoring_by_a_matrix_by_codes_and_by_another_dataset(tmp_path: Path):
    data, x, codes = worn(tmp_path / "small", gpuzip.BinaryQuantizer())
    want = codes.search(x[:9], 5, "ip", rescore=x, rescore_multiplier=10)
    better = gpuzip.Dataset.create(tmp_path / "better", gpuzip.HalfQuantizer().fit(x), ids="int64")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    better.append(x[order], data.ids[order])  # in another order: it is asked by id
    for store in (x, x.numpy(), gpuzip.HalfQuantizer().fit(x).encode(x), better):
        values, ids = data.search(x[:9], 5, "ip", rescore=store, rescore_multiplier=10)
        assert torch.allclose(values, want.values, atol=1e-2)
        assert torch.equal(ids, data.ids[want.ids])
    exact = data.search(x[:9], 5, "ip", rescore=x, rescore_multiplier=10)
    assert torch.equal(exact.values, want.values)


def test_an_empty_dataset_finds_nothing(tmp_path: Path):
    data = gpuzip.Dataset.create(tmp_path, half(), ids="string")
    values, ids = data.search(rows_of(3, 0), 4)
    assert values.shape == ids.shape == (3, 0)
    assert data.search(rows_of(3, 0), radius=0.5).lims.tolist() == [0, 0, 0, 0]
    assert data.decode().shape == (0, 8)
    with pytest.raises(gpuzip.GpuzipError, match="columns"):
        data.search(torch.zeros(2, 3))


def test_a_search_copies_no_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, x, codes = worn(tmp_path, gpuzip.ProductQuantizer(m=4))

    def copied(*_: object) -> None:
        raise AssertionError("codes were copied")

    monkeypatch.setattr(gpuzip.Codes, "__getitem__", copied)
    monkeypatch.setattr("gpuzip.search.packed.Packed.__getitem__", copied)
    monkeypatch.setattr("gpuzip.codecs.codes.joined", copied)
    assert torch.equal(data.search(x[:3]).values, codes.search(x[:3]).values)
    assert len(data.search(x[:3], metric="l2", radius=9.0).ids)
