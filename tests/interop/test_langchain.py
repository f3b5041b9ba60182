"""GpuzipVectorStore of LangChain, with the real package and its standard tests."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpuzip

pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

TEXTS = [f"text number {i}" for i in range(60)]
METADATA = [{"part": i % 3, "name": f"n{i}"} for i in range(60)]
IDS = [f"id{i}" for i in range(60)]


@pytest.fixture(autouse=True)
def installed() -> None:  # not while tests are collected, which imports it for no test
    pytest.importorskip("langchain_core", reason="needs the extra test-interop")


def embeddings() -> Any:
    module = importlib.import_module("langchain_core.embeddings")
    return module.DeterministicFakeEmbedding(size=32)


def vectors() -> np.ndarray:
    x: np.ndarray = np.array(embeddings().embed_documents(TEXTS))
    unit: np.ndarray = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


def made(**settings: Any) -> Any:
    store = importlib.import_module("gpuzip.interop.langchain").GpuzipVectorStore
    return store.from_texts(TEXTS, embeddings(), METADATA, ids=IDS, **settings)


def nearest(query: str, rows: np.ndarray, k: int) -> list[tuple[str, float]]:
    vector = np.array(embeddings().embed_query(query))
    scores = rows @ vector / np.linalg.norm(vector)
    return [(IDS[i], scores[i]) for i in np.argsort(-scores)[:k]]


@pytest.mark.parametrize("fit_after", [20, 1000])
def test_finds_what_a_float_search_finds(fit_after):
    found = made(fit_after=fit_after).similarity_search_with_score("text number 7", k=5)
    want = nearest("text number 7", vectors(), 5)
    assert [d.id for d, _ in found] == [id for id, _ in want]
    np.testing.assert_allclose([s for _, s in found], [s for _, s in want], atol=0.01)
    assert found[0][0].page_content == "text number 7" and found[0][0].metadata == METADATA[7]


def test_is_fitted_at_so_many_rows_and_smaller_then():
    store = made(codec=gpuzip.BinaryQuantizer(), fit_after=61)
    rows = store._store
    assert isinstance(rows.codes.codec, gpuzip.HalfQuantizer) and rows.codes.data.shape == (60, 64)
    store.add_texts(["one more"])
    assert isinstance(rows.codes.codec, gpuzip.BinaryQuantizer) and rows.codes.data.shape == (61, 4)
    store.add_texts(["and another"])
    assert rows.codes.data.shape == (62, 4)
    assert store.similarity_search("and another", k=1)[0].page_content == "and another"


def test_a_fitted_codec_encodes_at_once():
    codec = gpuzip.LloydMaxQuantizer(4).fit(vectors().astype(np.float32))
    store = made(codec=codec)
    assert store._store.codes.codec is codec
    assert store.similarity_search("text number 7", k=1)[0].id == "id7"


@pytest.mark.parametrize("filter", [{"part": 1}, lambda document: document.metadata["part"] == 1])
def test_filters_by_metadata(filter):
    store, allowed = made(), [i for i in range(60) if i % 3 == 1]
    rows = vectors()
    rows[[i for i in range(60) if i % 3 != 1]] = 0
    found = store.similarity_search("text number 7", k=4, filter=filter)
    assert [d.id for d in found] == [id for id, _ in nearest("text number 7", rows, 4)]
    assert len(store.similarity_search("text number 7", k=60, filter=filter)) == len(allowed)
    assert store.similarity_search("text number 7", k=4, filter={"part": 9}) == []


def test_adds_replaces_and_deletes():
    store = made()
    store.delete(["id7", "unknown"])
    assert len(store._store) == 59
    assert "id7" not in [d.id for d in store.similarity_search("text number 7", k=59)]
    assert [d.id for d in store.get_by_ids(["id9", "id7", "id8"])] == ["id9", "id8"]
    assert store.add_texts(["new text", "newer text"], ids=["id8", "id8"]) == ["id8", "id8"]
    assert len(store._store) == 59
    assert store.get_by_ids(["id8"])[0].page_content == "newer text"
    assert store.similarity_search("newer text", k=1)[0].id == "id8"
    store.delete()
    assert store.similarity_search("anything") == [] and store._store.codes is None
    store.add_texts(["again"])
    assert store.similarity_search("anything")[0].page_content == "again"


def test_documents_that_differ_are_chosen():
    store = made()
    store.add_texts(["text number 7"] * 3, ids=["a", "b", "c"])
    plain = [d.page_content for d in store.similarity_search("text number 7", k=4)]
    varied = [d.page_content for d in store.max_marginal_relevance_search("text number 7", k=4, fetch_k=30)]
    assert len(set(plain)) == 1 and len(set(varied)) == 4
    retriever = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.9}
    )
    assert {d.page_content for d in retriever.invoke("text number 7")} == {"text number 7"}


@pytest.mark.parametrize("fit_after", [20, 1000])
def test_a_saved_store_finds_the_same(fit_after, tmp_path):
    store = made(fit_after=fit_after)
    store.save(tmp_path / "store")
    again = type(store).load(tmp_path / "store", embeddings())
    for query in ("text number 7", "something else"):
        assert again.similarity_search_with_score(query, k=60) == store.similarity_search_with_score(
            query, k=60
        )
    again.add_texts(["one more"], [{"part": 0}], ids=["more"])
    again.delete(["id3"])
    again.save(tmp_path / "store")
    third = type(store).load(tmp_path / "store", embeddings())
    assert list(third._store.entries) == [*(id for id in IDS if id != "id3"), "more"]
    assert third.similarity_search("one more", k=1)[0].metadata == {"part": 0}
    assert not [p for p in (tmp_path / "store").iterdir() if p.suffix in (".pkl", ".pickle")]


@pytest.mark.parametrize(
    "codec",
    [None, gpuzip.BinaryQuantizer(), gpuzip.LloydMaxQuantizer(4).fit(np.eye(32, dtype=np.float32))],
    ids=["default", "not fitted", "fitted"],
)
def test_an_empty_store_is_saved_with_its_codec(codec, tmp_path):
    kind = importlib.import_module("gpuzip.interop.langchain").GpuzipVectorStore
    store = kind(embeddings(), codec, fit_after=7)
    store.save(tmp_path / "store")
    again = kind.load(tmp_path / "store", embeddings())
    assert len(again._store) == 0 and again._store.fit_after == 7
    assert (
        again._store.codec.same_as(store._store.codec)
        if codec and codec.is_fitted
        else not again._store.codec.is_fitted
    )
    assert again._store.codec.spec == store._store.codec.spec
    assert again.similarity_search("anything") == []


def test_a_damaged_folder_is_refused(tmp_path):
    store = made()
    store.save(tmp_path / "store")
    (file,) = (tmp_path / "store").glob("entries-*")
    text = file.read_text()
    file.write_text(text.replace("text number 7", "text number 8"))
    with pytest.raises(gpuzip.FormatError, match="does not match its checksum"):
        type(store).load(tmp_path / "store", embeddings())
    file.unlink()
    with pytest.raises(gpuzip.FormatError, match="is missing"):
        type(store).load(tmp_path / "store", embeddings())


def test_what_is_no_json_and_other_widths_change_nothing():
    store = made()
    for metadata in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            store.add_texts(["new"], [metadata])
    with pytest.raises(gpuzip.GpuzipError, match=r"must have 32 columns, .*; got 2"):
        store._store.add(["a"], [[1.0, 2.0]], [{}])
    with pytest.raises(gpuzip.GpuzipError, match="ids and entries must be 1, one per row; got 2 and 1"):
        store._store.add(["a", "b"], [[1.0, 2.0]], [{}])
    assert list(store._store.entries) == IDS


STANDARD = """
import pytest
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from gpuzip.interop.langchain import GpuzipVectorStore


class TestGpuzip(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self):
        return GpuzipVectorStore(self.get_embeddings())
"""


def test_passes_the_standard_tests_of_langchain(tmp_path):
    pytest.importorskip("langchain_tests", reason="needs the extra test-interop")
    (tmp_path / "test_standard.py").write_text(STANDARD)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(gpuzip.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout and "skipped" not in done.stdout
    assert int(done.stdout.split(" passed")[0].split()[-1]) >= 20
