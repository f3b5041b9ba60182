"""GpuzipVectorStore of LlamaIndex, with the real package, beside its SimpleVectorStore."""

import importlib
from typing import Any

import numpy as np
import pytest

import gpuzip
from tests.lazy import Lazy

core = Lazy("llama_index.core")
pytestmark = [pytest.mark.full, pytest.mark.filterwarnings("ignore")]

N, D = 60, 32
ROWS = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
QUERY = (ROWS[7] + 0.3 * ROWS[9]).tolist()


@pytest.fixture(autouse=True)
def installed() -> None:  # not while tests are collected, which imports it for no test
    pytest.importorskip("llama_index.core", reason="needs the extra test-interop")


def types() -> Any:
    return importlib.import_module("llama_index.core.vector_stores.types")


def nodes() -> list[Any]:
    schema = importlib.import_module("llama_index.core.schema")
    made = []
    for i, row in enumerate(ROWS):
        source = schema.RelatedNodeInfo(node_id=f"doc{i % 5}")
        node = schema.TextNode(
            id_=f"id{i}", text=f"text {i}", metadata={"part": i % 3, "tags": [f"t{i % 4}"]}
        )
        node.relationships[schema.NodeRelationship.SOURCE] = source
        node.embedding = row.tolist()
        made.append(node)
    return made


def made(**settings: Any) -> Any:
    store = importlib.import_module("gpuzip.interop.llama_index").GpuzipVectorStore(**settings)
    assert store.add(nodes()) == [f"id{i}" for i in range(N)]
    return store


def simple() -> Any:
    store = importlib.import_module("llama_index.core.vector_stores.simple").SimpleVectorStore()
    store.add(nodes())
    return store


def ask(store: Any, k: int = 5, **settings: Any) -> Any:
    return store.query(types().VectorStoreQuery(query_embedding=QUERY, similarity_top_k=k, **settings))


def filters(*triples: tuple[str, str, Any], condition: str = "and") -> Any:
    t = types()
    each = [t.MetadataFilter(key=key, operator=operator, value=value) for key, operator, value in triples]
    return t.MetadataFilters(filters=each, condition=condition)


FILTERS = {
    "equal": lambda: filters(("part", "==", 1)),
    "or": lambda: filters(("part", "==", 1), ("part", ">", 1), condition="or"),
    "and": lambda: filters(("part", "!=", 1), ("tags", "contains", "t2")),
    "in": lambda: filters(("part", "in", [0, 2])),
}


@pytest.mark.parametrize("fit_after", [20, 1000])
@pytest.mark.parametrize("name", [None, *FILTERS])
def test_finds_what_the_simple_store_finds(fit_after, name):
    settings = {} if name is None else {"filters": FILTERS[name]()}
    got, all = ask(made(fit_after=fit_after), **settings), ask(simple(), k=N, **settings)
    of_floats = dict(zip(all.ids, all.similarities, strict=True))
    np.testing.assert_allclose(got.similarities, [of_floats[id] for id in got.ids], atol=0.01)
    np.testing.assert_allclose(got.similarities, all.similarities[:5], atol=0.01)
    assert [node.node_id for node in got.nodes] == got.ids
    first = got.nodes[0]
    i = int(first.node_id.removeprefix("id"))
    assert first.get_content() == f"text {i}" and first.metadata == {"part": i % 3, "tags": [f"t{i % 4}"]}
    assert first.ref_doc_id == f"doc{i % 5}"


def test_node_ids_and_varied_results_are_those_of_the_simple_store():
    store, other = made(), simple()
    some: dict[str, Any] = {"node_ids": [f"id{i}" for i in range(8)]}
    assert ask(store, **some).ids == ask(other, **some).ids
    assert set(ask(store, k=N, doc_ids=["doc2", "doc3"]).ids) == {
        f"id{i}" for i in range(N) if i % 5 in (2, 3)
    }
    assert ask(store, k=N, doc_ids=["doc2"], **some).ids == ["id7", "id2"]
    varied = {"mode": types().VectorStoreQueryMode.MMR}
    query = types().VectorStoreQuery(query_embedding=QUERY, similarity_top_k=5, **varied)
    got = store.query(query, mmr_threshold=0.2, mmr_prefetch_k=N)
    assert got.ids == other.query(query, mmr_threshold=0.2).ids
    assert set(got.ids) != set(ask(store).ids)
    with pytest.raises(gpuzip.GpuzipError, match=r"mode must be 'default' or 'mmr'.*'svm'"):
        ask(store, mode=types().VectorStoreQueryMode.SVM)


def test_deletes_by_document_by_id_and_by_metadata():
    store = made()
    store.delete("doc2")
    left = [i for i in range(N) if i % 5 != 2]
    assert [n.node_id for n in store.get_nodes()] == [f"id{i}" for i in left]
    assert "id7" not in ask(store, k=N).ids
    store.delete_nodes(["id0", "unknown"])
    store.delete_nodes(filters=filters(("part", "==", 1)))
    left = [i for i in left if i and i % 3 != 1]
    assert [n.node_id for n in store.get_nodes()] == [f"id{i}" for i in left]
    assert set(ask(store, k=N).ids) == {f"id{i}" for i in left}
    (node,) = store.get_nodes(["id5"])
    node.embedding, node.text = QUERY, "new text"
    store.add([node])
    assert len(store.get_nodes()) == len(left)
    assert ask(store, k=1).nodes[0].get_content() == "new text"
    store.clear()
    assert store.get_nodes() == [] and ask(store).ids == []


@pytest.mark.parametrize("fit_after", [20, 1000])
def test_a_persisted_store_finds_the_same(fit_after, tmp_path):
    store = made(fit_after=fit_after)
    store.persist(str(tmp_path / "store"))
    again = type(store).from_persist_path(str(tmp_path / "store"))
    got, want = ask(again, k=N), ask(store, k=N)
    assert (got.ids, got.similarities) == (want.ids, want.similarities)
    assert [n.to_dict() for n in got.nodes] == [n.to_dict() for n in want.nodes]
    again.delete("doc1")
    again.persist(str(tmp_path / "store"))
    assert len(type(store).from_persist_path(str(tmp_path / "store")).get_nodes()) == 48


def test_an_index_of_llama_index_adds_finds_and_deletes():
    mock = core.MockEmbedding(embed_dim=D)
    store = importlib.import_module("gpuzip.interop.llama_index").GpuzipVectorStore()
    context = core.StorageContext.from_defaults(vector_store=store)
    index = core.VectorStoreIndex(nodes(), storage_context=context, embed_model=mock)
    found = index.as_retriever(similarity_top_k=3, filters=FILTERS["equal"]()).retrieve("anything")
    assert [node.metadata["part"] for node in found] == [1, 1, 1]
    index.delete_ref_doc("doc1")
    assert len(store.get_nodes()) == 48
    again = core.VectorStoreIndex.from_vector_store(store, embed_model=mock)
    assert len(again.as_retriever(similarity_top_k=99).retrieve("anything")) == 48
