"""A batch of any kind comes back as one of the same kind, with as many rows and the bytes of `encode`."""

import pickle
import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import gpuzip
from gpuzip import distributed
from gpuzip.distributed import encoder as module
from tests.distributed.shards import D, rows_of

pa = pytest.importorskip("pyarrow")

X = rows_of(40, 1)
IDS = np.arange(40)


@cache  # not while tests are collected: loops would be compiled by each process of the tests
def fitted() -> gpuzip.RaBitQuantizer:
    return gpuzip.RaBitQuantizer(bits=2).fit(X)


@cache
def wanted() -> Any:
    return fitted().encode(X).data[:].numpy()


def lists(kind: Any) -> Any:
    return pa.array(list(X.numpy().astype(np.float32)), kind)


COLUMNS = {
    "fixed": lambda: pa.FixedSizeListArray.from_arrays(pa.array(X.numpy().reshape(-1)), D),
    "list": lambda: lists(pa.list_(pa.float32())),
    "large": lambda: lists(pa.large_list(pa.float32())),
    "double": lambda: lists(pa.list_(pa.float64())),
    "sliced": lambda: pa.concat_arrays(
        [lists(pa.list_(pa.float32()))[:3]] * 2 + [lists(pa.list_(pa.float32()))]
    )[6:],
}


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("kind", [pa.Table, pa.RecordBatch])
def test_arrow(column, kind):
    batch = kind.from_arrays([pa.array(IDS), COLUMNS[column]()], names=["id", "embedding"])
    found = distributed.Encoder(fitted())(batch)
    assert type(found) is kind and found.schema.names == ["id", "codes"]
    codes = gpuzip.from_arrow(found, column="codes", codec=fitted())
    assert np.array_equal(codes.data[:].numpy(), wanted())
    assert found.column(0).to_pylist() == IDS.tolist()


def test_an_array_a_table_of_chunks_and_an_iterator():
    encoder = distributed.Encoder(fitted())
    array = COLUMNS["fixed"]()
    assert np.array_equal(gpuzip.from_arrow(encoder(array), codec=fitted()).data[:].numpy(), wanted())
    table = pa.table({"embedding": pa.chunked_array([array[:7], array[7:]])})
    assert gpuzip.from_arrow(encoder(table), column="codes", codec=fitted()).shape == (40, D)
    batches = list(encoder(iter(table.to_batches())))
    assert [len(one) for one in batches] == [7, 33] and batches[0].schema.field("codes").type == pa.binary()


def test_numpy():
    rows = np.empty(40, object)
    rows[:] = list(X.numpy())
    for embedding in (X.numpy(), X.double().numpy(), rows):
        found = distributed.Encoder(fitted(), "e", output="c")({"id": IDS, "e": embedding})
        assert list(found) == ["id", "c"] and np.array_equal(found["c"], wanted())


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": IDS, "embedding": list(X.numpy())}, index=IDS + 5)
    found = distributed.Encoder(fitted())(frame)
    assert list(found.columns) == ["id", "codes"] and list(found.index) == list(IDS + 5)
    assert b"".join(found["codes"]) == wanted().tobytes()
    assert len(distributed.Encoder(fitted())(frame[:0])) == 0


@pytest.mark.parametrize("kind", ["table", "dict"])
def test_no_rows_are_no_rows(kind):
    batch: Any = {"embedding": X[:0].numpy()}
    if kind == "table":
        batch = pa.table({"embedding": COLUMNS["list"]()[:0]})
    assert len(distributed.Encoder(fitted())(batch)["codes"]) == 0


def test_it_is_small_and_a_process_loads_the_codec_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_loaded", {})
    fitted().save(tmp_path / "codec.ezip")
    for source, most in ((fitted(), 2000), (tmp_path / "codec.ezip", 500)):
        packed = pickle.dumps(distributed.Encoder(source))
        assert len(packed) < most
        one, other = pickle.loads(packed), pickle.loads(packed)
        assert np.array_equal(one({"embedding": X.numpy()})["codes"], wanted())
        assert one.codec is other.codec
    assert len(module._loaded) == 2


def test_the_gpu_is_that_of_the_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert module._own_device() == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert module._own_device() == "cuda:2"


NAN = X.numpy().copy()
NAN[3, 2] = np.nan


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ({"id": IDS}, r"column must be one of \['id'\]; got 'embedding'"),
        ({"embedding": X.numpy(), "codes": IDS}, "output must be a new name"),
        ({"embedding": X[:, :5].numpy()}, "must have 16 columns"),
        ({"embedding": NAN}, "row 3 holds NaN or inf"),
        (pa.table({"embedding": pa.array([[1.0], None])}), "got nulls"),
        (pa.table({"embedding": pa.array([[1.0], [1.0, 2.0]])}), "must be numbers, as many in each"),
        ([1, 2], "a batch must be a pyarrow table"),
    ],
)
def test_what_cannot_be_encoded_is_refused(batch, match):
    with pytest.raises(gpuzip.GpuzipError, match=match):
        distributed.Encoder(fitted())(batch)


def test_wrong_settings_are_refused():
    with pytest.raises(gpuzip.NotFittedError):
        distributed.Encoder(gpuzip.HalfQuantizer())
    with pytest.raises(gpuzip.GpuzipError, match="column must be the name"):
        distributed.Encoder(fitted(), "")
    with pytest.raises(gpuzip.GpuzipError, match="device must be one that torch finds"):
        distributed.Encoder(fitted(), device="gpu")


def test_ray_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(gpuzip.MissingDependencyError, match="gpuzip\\[ray\\]"):
        distributed.compress_dataset(None, "embedding", "never-made", fitted())
